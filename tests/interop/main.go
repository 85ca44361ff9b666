// Interop verifies a log that Tallystick wrote with tools that are not ours:
//
//   - tessera's fsck and client over the directory of tiles, under each of the log's two keys;
//   - x/mod's sumdb/note and sumdb/tlog, which know nothing of ML-DSA, on notes, tiles and proofs;
//   - transparency-dev/formats and transparency-dev/merkle on checkpoints and .tlog-proof files.
//
// Each must hold on the log as written, and each must refuse when one byte was changed.
//
// make_log.py beside this file writes the log; `make interop` runs both.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"

	"k8s.io/klog/v2"
)

// The modules whose verdict is reported, by the short names used below.
const (
	tessera = "github.com/transparency-dev/tessera"
	formats = "github.com/transparency-dev/formats"
	merkle  = "github.com/transparency-dev/merkle"
	sumdb   = "golang.org/x/mod"
)

// A check asks one foreign tool about one thing. It returns nil if the thing is as it should be: verified where it is
// genuine, refused where it was changed.
type check struct {
	module string
	what   string
	run    func() error
}

func main() {
	folder := flag.String("folder", "", "what make_log.py wrote")
	flag.Parse()
	// fsck reports to klog as well; its verdict is what we print.
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)

	l, err := readLog(*folder)
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
	fmt.Printf("The log %s, checkpoints at %v, verified with %s and\n", l.Origin, l.Sizes, runtime.Version())
	versions := moduleVersions()
	for _, module := range []string{tessera, formats, merkle, sumdb} {
		fmt.Printf("  %s %s\n", module, versions[module])
	}

	checks := append(genuine(l), changed(l)...)
	failed := 0
	for _, c := range checks {
		if err := c.run(); err != nil {
			failed++
			fmt.Printf("FAILED  %-38s %s: %v\n", c.module, c.what, err)
			continue
		}
		fmt.Printf("ok      %-38s %s\n", c.module, c.what)
	}
	fmt.Printf("%d passed, %d failed\n", len(checks)-failed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// moduleVersions says which versions this program was built with.
func moduleVersions() map[string]string {
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			versions[dep.Path] = dep.Version
		}
	}
	return versions
}
