package exec

// Logs keeps what the last run of each action wrote.
type Logs struct{ dir string }
