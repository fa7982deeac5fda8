package main

import "github.com/urfave/cli/v2"

func queryCommand() *cli.Command  { return &cli.Command{Name: "query"} }
func aqueryCommand() *cli.Command { return &cli.Command{Name: "aquery"} }
func whyCommand() *cli.Command    { return &cli.Command{Name: "why"} }
