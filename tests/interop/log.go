package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"golang.org/x/mod/sumdb/note"
)

// A publishedLog is what make_log.py wrote: a log directory, older checkpoints, and proofs made by our prover.
type publishedLog struct {
	Folder      string
	Origin      string
	Log         string   // the log's directory, below Folder
	Ed25519     string   // vkey
	MLDSA44     string   // vkey
	Strangers   []string // vkeys of the same name that signed nothing
	Sizes       []uint64
	Indexes     []uint64
	Consistency []consistencyProof

	ed25519, mldsa44 note.Verifier
	strangers        []note.Verifier
	checkpoints      map[uint64][]byte
	proofs           map[uint64][]byte
	heads            map[uint64]*log.Checkpoint // of checkpoints; verified in readLog
}

type consistencyProof struct {
	Old, New uint64
	Proof    [][]byte // base64 in JSON
}

func (l *publishedLog) root() string   { return filepath.Join(l.Folder, l.Log) }
func (l *publishedLog) newest() uint64 { return l.Sizes[len(l.Sizes)-1] }

// keys are the log's two, by the names that are printed.
func (l *publishedLog) keys() map[string]note.Verifier {
	return map[string]note.Verifier{"Ed25519": l.ed25519, "ML-DSA-44": l.mldsa44}
}

func readLog(folder string) (*publishedLog, error) {
	data, err := os.ReadFile(filepath.Join(folder, "interop.json"))
	if err != nil {
		return nil, err
	}
	l := &publishedLog{
		Folder:      folder,
		checkpoints: map[uint64][]byte{},
		proofs:      map[uint64][]byte{},
		heads:       map[uint64]*log.Checkpoint{},
	}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, err
	}
	if l.ed25519, err = fnote.NewVerifier(l.Ed25519); err != nil {
		return nil, err
	}
	if l.mldsa44, err = fnote.NewVerifier(l.MLDSA44); err != nil {
		return nil, err
	}
	for _, vkey := range l.Strangers {
		stranger, err := fnote.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		l.strangers = append(l.strangers, stranger)
	}
	for _, index := range l.Indexes {
		if l.proofs[index], err = os.ReadFile(filepath.Join(folder, "proofs", fmt.Sprintf("%d.tlog-proof", index))); err != nil {
			return nil, err
		}
	}
	for _, size := range l.Sizes {
		raw, err := os.ReadFile(filepath.Join(folder, "checkpoints", fmt.Sprint(size)))
		if err != nil {
			return nil, err
		}
		l.checkpoints[size] = raw
		if l.heads[size], err = l.openCheckpoint(raw); err != nil {
			return nil, fmt.Errorf("checkpoint %d: %w", size, err)
		}
		if l.heads[size].Size != size {
			return nil, fmt.Errorf("checkpoint %d says %d", size, l.heads[size].Size)
		}
	}
	return l, nil
}

// openCheckpoint verifies a checkpoint under both keys of the log.
//
// Go's decoder lets the unused last bits of base64 vary, which the signed-note specification does not allow and our own
// parser refuses; so that an exhaustive change of bytes can be counted, the strict reading is added here.
func (l *publishedLog) openCheckpoint(raw []byte) (*log.Checkpoint, error) {
	head, _, opened, err := log.ParseCheckpoint(raw, l.Origin, l.ed25519, l.mldsa44)
	if err != nil {
		return nil, err
	}
	if len(opened.Sigs) != 2 || len(opened.UnverifiedSigs) != 0 {
		return nil, fmt.Errorf("%d verified and %d unknown signatures, not 2 and 0", len(opened.Sigs), len(opened.UnverifiedSigs))
	}
	for _, sig := range opened.Sigs {
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return nil, err
		}
	}
	return head, nil
}

// entry reads one entry of the newest tree with tessera's parser of bundles.
func (l *publishedLog) entry(index uint64) ([]byte, error) {
	number := index / layout.EntryBundleWidth
	partial := layout.PartialTileSize(0, number, l.newest())
	data, err := os.ReadFile(filepath.Join(l.root(), layout.EntriesPath(number, partial)))
	if err != nil {
		return nil, err
	}
	bundle := &api.EntryBundle{}
	if err := bundle.UnmarshalText(data); err != nil {
		return nil, err
	}
	return bundle.Entries[index%layout.EntryBundleWidth], nil
}
