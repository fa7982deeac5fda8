// Package rules embeds the rule library, which BUILD files load as @rules.
package rules

import "embed"

// FS holds the library's .star files, by package.
//
//go:embed archive debian deployment disk emulator environment go initrd machine oci package prelude service services testing
var FS embed.FS
