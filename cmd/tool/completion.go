package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// The shells ask the program itself what could come next.
var completionScripts = map[string]string{
	"bash": `_tool() {
  local cur=${COMP_WORDS[COMP_CWORD]}
  local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
  [[ $cur == -* ]] && words+=("$cur")
  COMPREPLY=($(compgen -W "$("${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -o nospace -F _tool tool
`,
	"zsh": `#compdef tool
_tool() {
  local -a opts
  opts=("${(@f)$(${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
  _describe 'values' opts
}
compdef _tool tool
`,
	"fish": `complete -c tool -f -a '(eval (commandline -opc) --generate-bash-completion 2>/dev/null)'
`,
}

func completionCommand() *cli.Command {
	return &cli.Command{
		Name: "completion", Usage: "print a completion script for a shell", ArgsUsage: "bash|zsh|fish",
		Description: "For bash: source <(tool completion bash)",
		Action: func(c *cli.Context) error {
			s, ok := completionScripts[c.Args().First()]
			if !ok || c.Args().Len() != 1 {
				return usageError("tool completion: want one of bash, zsh, fish")
			}
			_, err := fmt.Fprint(c.App.Writer, s)
			return err
		},
	}
}
