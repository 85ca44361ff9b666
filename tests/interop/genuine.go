package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/transparency-dev/formats/proof"
	merkleproof "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight   = 8
	checkTimeout = time.Minute
	// fsckWorkers exceeds the tiles of the log: fsck's workers stop at their first bad tile, and with fewer of them
	// than tiles the one that feeds them would wait for ever.
	fsckWorkers = 32
)

// genuine are the checks of the log as it was written.
func genuine(l *publishedLog) []check {
	var checks []check
	for name, key := range l.keys() {
		for _, size := range l.Sizes {
			checks = append(checks, check{tessera, fmt.Sprintf("fsck at size %d under the %s key", size, name), func() error {
				return runFsck(l, size, key)
			}})
		}
		checks = append(checks, check{tessera, fmt.Sprintf("client follows the log through its sizes under the %s key", name), func() error {
			return follow(l, key)
		}})
	}
	slices.SortFunc(checks, func(a, b check) int { return strings.Compare(a.what, b.what) })
	return append(checks,
		check{tessera, "client builds the same inclusion and consistency proofs from the tiles", func() error { return sameProofsAsTessera(l) }},
		check{sumdb, "note opens each checkpoint by Ed25519 and passes over ML-DSA-44", func() error { return openWithSumdb(l) }},
		check{sumdb, "tlog proves the tiles and builds the same proofs from them", func() error { return sameProofsAsTlog(l) }},
		check{sumdb, "tlog checks the consistency proofs", func() error { return eachConsistency(l, checkTree) }},
		check{merkle, "proof checks the consistency proofs", func() error { return eachConsistency(l, verifyConsistency) }},
		check{formats, "proof reads each .tlog-proof file, merkle and tlog check its inclusion proof", func() error { return eachProofFile(l) }},
	)
}

// view is the log's directory at one of its sizes.
type view struct {
	client.FileFetcher
	checkpoint []byte
}

func (v view) ReadCheckpoint(context.Context) ([]byte, error) { return v.checkpoint, nil }

func runFsck(l *publishedLog, size uint64, key note.Verifier) error {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	at := view{client.FileFetcher{Root: l.root()}, l.checkpoints[size]}
	return fsck.New(l.Origin, key, at, leafHashes, fsck.Opts{N: fsckWorkers}).Check(ctx)
}

func leafHashes(data []byte) ([][]byte, error) {
	bundle := &api.EntryBundle{}
	if err := bundle.UnmarshalText(data); err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, entry := range bundle.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return hashes, nil
}

// follow has tessera's tracker start at the oldest checkpoint and prove every step to the next from the tiles.
func follow(l *publishedLog, key note.Verifier) error {
	ctx := context.Background()
	files := client.FileFetcher{Root: l.root()}
	shown := l.checkpoints[l.Sizes[0]]
	read := func(context.Context) ([]byte, error) { return shown, nil }
	tracker, err := client.NewLogStateTracker(ctx, files.ReadTile, shown, key, l.Origin, client.UnilateralConsensus(read))
	if err != nil {
		return err
	}
	for _, size := range l.Sizes[1:] {
		shown = l.checkpoints[size]
		if _, _, _, err := tracker.Update(ctx); err != nil {
			return fmt.Errorf("to size %d: %w", size, err)
		}
		if tracker.Latest().Size != size {
			return fmt.Errorf("stayed at %d instead of %d", tracker.Latest().Size, size)
		}
	}
	return nil
}

func sameProofsAsTessera(l *publishedLog) error {
	ctx := context.Background()
	builder, err := client.NewProofBuilder(ctx, l.newest(), client.FileFetcher{Root: l.root()}.ReadTile)
	if err != nil {
		return err
	}
	for _, index := range l.Indexes {
		theirs, err := builder.InclusionProof(ctx, index)
		if err != nil {
			return err
		}
		ours, err := readProofFile(l.proofs[index])
		if err != nil {
			return err
		}
		if !slices.EqualFunc(theirs, ours.Hashes, func(a []byte, b [32]byte) bool { return bytes.Equal(a, b[:]) }) {
			return fmt.Errorf("another inclusion proof of leaf %d", index)
		}
	}
	for _, c := range l.Consistency {
		// A builder for the larger size reads that size's partial tiles.
		at, err := client.NewProofBuilder(ctx, c.New, client.FileFetcher{Root: l.root()}.ReadTile)
		if err != nil {
			return err
		}
		theirs, err := at.ConsistencyProof(ctx, c.Old, c.New)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(theirs, c.Proof, bytes.Equal) {
			return fmt.Errorf("another consistency proof from %d to %d", c.Old, c.New)
		}
	}
	return nil
}

func openWithSumdb(l *publishedLog) error {
	key, err := note.NewVerifier(l.Ed25519)
	if err != nil {
		return err
	}
	for _, size := range l.Sizes {
		opened, err := note.Open(l.checkpoints[size], note.VerifierList(key))
		if err != nil {
			return fmt.Errorf("checkpoint %d: %w", size, err)
		}
		if len(opened.Sigs) != 1 || len(opened.UnverifiedSigs) != 1 {
			return fmt.Errorf("checkpoint %d: %d verified and %d unknown signatures, not 1 and 1", size, len(opened.Sigs), len(opened.UnverifiedSigs))
		}
	}
	return nil
}

// tiles reads our tiles for x/mod, whose own paths name the tile height as well.
type tiles string

func (t tiles) Height() int                     { return tileHeight }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range wanted {
		content, err := t.read(tile)
		if errors.Is(err, fs.ErrNotExist) && tile.W < 1<<tileHeight {
			// Collected: tlog-tiles has readers take the beginning of the full tile.
			full := tile
			full.W = 1 << tileHeight
			if content, err = t.read(full); err == nil {
				content = content[:min(len(content), tile.W*tlog.HashSize)]
			}
		}
		if err != nil {
			return nil, err
		}
		data = append(data, content)
	}
	return data, nil
}

func (t tiles) read(tile tlog.Tile) ([]byte, error) {
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
	return os.ReadFile(filepath.Join(string(t), path))
}

func sameProofsAsTlog(l *publishedLog) error {
	for _, size := range l.Sizes {
		// This reader proves every tile against the checkpoint's root before it uses it.
		reader := tlog.TileHashReader(tlog.Tree{N: int64(size), Hash: tlog.Hash(l.heads[size].Hash)}, tiles(l.root()))
		for _, index := range l.Indexes {
			if index >= size {
				continue
			}
			theirs, err := tlog.ProveRecord(int64(size), int64(index), reader)
			if err != nil {
				return fmt.Errorf("leaf %d at size %d: %w", index, size, err)
			}
			if size != l.newest() {
				continue
			}
			ours, err := readProofFile(l.proofs[index])
			if err != nil {
				return err
			}
			if !slices.EqualFunc(theirs, ours.Hashes, func(a tlog.Hash, b [32]byte) bool { return a == b }) {
				return fmt.Errorf("another inclusion proof of leaf %d", index)
			}
		}
		for _, c := range l.Consistency {
			if c.New != size {
				continue
			}
			theirs, err := tlog.ProveTree(int64(c.New), int64(c.Old), reader)
			if err != nil {
				return fmt.Errorf("from %d to %d: %w", c.Old, c.New, err)
			}
			if !slices.EqualFunc(theirs, c.Proof, func(a tlog.Hash, b []byte) bool { return bytes.Equal(a[:], b) }) {
				return fmt.Errorf("another consistency proof from %d to %d", c.Old, c.New)
			}
		}
	}
	return nil
}

// A consistencyChecker is one tool's answer to whether a proof leads from the old root to the new one.
type consistencyChecker func(c consistencyProof, oldRoot, newRoot []byte) error

func checkTree(c consistencyProof, oldRoot, newRoot []byte) error {
	var hashes tlog.TreeProof
	for _, item := range c.Proof {
		hashes = append(hashes, tlog.Hash(item))
	}
	return tlog.CheckTree(hashes, int64(c.New), tlog.Hash(newRoot), int64(c.Old), tlog.Hash(oldRoot))
}

func verifyConsistency(c consistencyProof, oldRoot, newRoot []byte) error {
	return merkleproof.VerifyConsistency(rfc6962.DefaultHasher, c.Old, c.New, c.Proof, oldRoot, newRoot)
}

func eachConsistency(l *publishedLog, check consistencyChecker) error {
	for _, c := range l.Consistency {
		if err := check(c, l.heads[c.Old].Hash, l.heads[c.New].Hash); err != nil {
			return fmt.Errorf("from %d to %d: %w", c.Old, c.New, err)
		}
	}
	return nil
}

func readProofFile(data []byte) (*proof.TLogProof, error) {
	file := &proof.TLogProof{}
	if err := file.Unmarshal(data); err != nil {
		return nil, err
	}
	if !bytes.Equal(file.Marshal(), data) {
		return nil, fmt.Errorf("formats writes this proof file in other bytes")
	}
	return file, nil
}

// verifyProofFile checks a proof file of an entry as an auditor with foreign tools would.
func verifyProofFile(l *publishedLog, data, entry []byte) error {
	file, err := readProofFile(data)
	if err != nil {
		return err
	}
	head, err := l.openCheckpoint(file.Checkpoint)
	if err != nil {
		return err
	}
	var hashes [][]byte
	var record tlog.RecordProof
	for _, item := range file.Hashes {
		hashes = append(hashes, item[:])
		record = append(record, item)
	}
	byMerkle := merkleproof.VerifyInclusion(
		rfc6962.DefaultHasher, file.Index, head.Size, rfc6962.DefaultHasher.HashLeaf(entry), hashes, head.Hash)
	byTlog := tlog.CheckRecord(
		record, int64(head.Size), tlog.Hash(head.Hash), int64(file.Index), tlog.RecordHash(entry))
	if (byMerkle == nil) != (byTlog == nil) {
		return fmt.Errorf("merkle says %v, tlog says %v", byMerkle, byTlog)
	}
	return byMerkle
}

func eachProofFile(l *publishedLog) error {
	for _, index := range l.Indexes {
		entry, err := l.entry(index)
		if err != nil {
			return err
		}
		if err := verifyProofFile(l, l.proofs[index], entry); err != nil {
			return fmt.Errorf("leaf %d: %w", index, err)
		}
	}
	return nil
}
