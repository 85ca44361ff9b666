// Witness runs the transparency-dev witness, as it is published, for the log of the Python program beside it.
//
// Two of them answer on ports of this machine: one trusts the log's Ed25519 key and cosigns with Ed25519 (0x04), the
// other trusts its ML-DSA-44 key and cosigns with ML-DSA-44 (0x06). Their names, keys and submission prefixes are
// printed as one line of JSON; they run until standard input ends.
//
// cosign.py beside make_log.py starts this program; `make interop` runs both.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/witness/config"
	"github.com/transparency-dev/witness/persistence/inmemory"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"
)

// A running witness, as the other side has to know it.
type running struct {
	Name string `json:"name"`
	VKey string `json:"vkey"`
	URL  string `json:"url"`
}

// A maker makes a witness's key of its kind.
type maker struct {
	name string
	make func(name string) (signer note.Signer, vkey string, err error)
}

func main() {
	ed25519 := flag.String("ed25519", "", "the log's Ed25519 vkey")
	mldsa := flag.String("mldsa44", "", "the log's ML-DSA-44 vkey")
	flag.Parse()
	if err := run(*ed25519, *mldsa); err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
}

func run(ed25519, mldsa string) error {
	witnesses := make([]running, 0, 2)
	for _, w := range []struct {
		maker
		log string
	}{{maker{"ed25519", makeEd25519}, ed25519}, {maker{"mldsa44", makeMLDSA}, mldsa}} {
		started, err := start(w.maker, w.log)
		if err != nil {
			return err
		}
		witnesses = append(witnesses, started)
	}
	line := map[string]any{"witnesses": witnesses, "version": version("github.com/transparency-dev/witness")}
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// start lets one witness answer on a free port.
func start(m maker, logKey string) (running, error) {
	verifier, err := fnote.NewVerifier(logKey)
	if err != nil {
		return running{}, err
	}
	signer, vkey, err := m.make("witness.example/" + m.name)
	if err != nil {
		return running{}, err
	}
	ctx := context.Background()
	store := inmemory.New()
	if err := store.AddLogs(ctx, []config.Log{{Verifier: verifier, Origin: verifier.Name()}}); err != nil {
		return running{}, err
	}
	w, err := witness.New(ctx, witness.Opts{
		Persistence: store,
		Signers:     []note.Signer{signer},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			return verifier, origin == verifier.Name(), nil
		},
	})
	if err != nil {
		return running{}, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return running{}, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /w/add-checkpoint", witness.NewHTTPHandler(w).AddCheckpoint)
	go func() { _ = http.Serve(listener, mux) }()
	return running{Name: m.name, VKey: vkey, URL: "http://" + listener.Addr().String() + "/w"}, nil
}

func makeEd25519(name string) (note.Signer, string, error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return nil, "", err
	}
	signer, err := fnote.NewSignerForCosignatureV1(skey)
	if err != nil {
		return nil, "", err
	}
	cosigner, err := fnote.VKeyToCosignatureV1(vkey)
	return signer, cosigner, err
}

func makeMLDSA(name string) (note.Signer, string, error) {
	skey, vkey, err := fnote.GenerateMLDSAKey(name)
	if err != nil {
		return nil, "", err
	}
	signer, err := fnote.NewMLDSASigner(skey)
	return signer, vkey, err
}

// version says which version of a module this program was built with.
func version(path string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if strings.HasPrefix(dep.Path, path) {
				return dep.Path + " " + dep.Version
			}
		}
	}
	return path
}
