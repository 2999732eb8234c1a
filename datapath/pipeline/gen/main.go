// Command gen writes docs/pipeline.md from the pipeline's own description. It runs by go
// generate in package pipeline.
package main

import (
	"flag"
	"fmt"
	"os"

	"yakumo/datapath/pipeline"
)

func main() {
	out := flag.String("o", "", "file to write")
	flag.Parse()
	text, err := pipeline.Describe()
	if err == nil {
		err = os.WriteFile(*out, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}
