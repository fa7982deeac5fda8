package virtualbox

// For tests of what VirtualBox knows by these.
var (
	DiskID   = diskID
	Settings = settingsOf
	SeedFile = seedFile
)
