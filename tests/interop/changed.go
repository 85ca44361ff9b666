package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// changed are the checks that must be refused, each after the change of one byte or of one part for another.
func changed(l *publishedLog) []check {
	checks := []check{
		{tessera, "fsck refuses every tile and entry bundle with a byte changed at its start, middle and end", func() error { return changedFiles(l) }},
		{tessera, "fsck refuses a checkpoint under keys that did not sign it", func() error { return strangers(l) }},
		{formats, "log refuses a checkpoint with any one byte changed", func() error {
			raw := l.checkpoints[l.newest()]
			return everyByte(raw, func(data []byte) error { _, err := l.openCheckpoint(data); return err })
		}},
		{formats, "proof, merkle and tlog refuse a .tlog-proof file with any one byte changed", func() error {
			index := l.Indexes[len(l.Indexes)/2]
			entry, err := l.entry(index)
			if err != nil {
				return err
			}
			return everyByte(l.proofs[index], func(data []byte) error { return verifyProofFile(l, data, entry) })
		}},
		{merkle, "proof and tlog refuse an entry with any one byte changed", func() error {
			index := l.Indexes[0]
			entry, err := l.entry(index)
			if err != nil {
				return err
			}
			return everyByte(entry, func(data []byte) error { return verifyProofFile(l, l.proofs[index], data) })
		}},
		{merkle, "proof and tlog refuse the proof of another leaf", func() error { return exchangedProofs(l) }},
	}
	const what = "refuses consistency proofs with a hash changed, missing or added, and wrong roots"
	return append(checks,
		check{sumdb, "tlog " + what, func() error { return changedConsistency(l, checkTree) }},
		check{merkle, "proof " + what, func() error { return changedConsistency(l, verifyConsistency) }},
	)
}

var errAccepted = errors.New("it was accepted")

// flipped returns a copy of data with the lowest bit of one byte turned over.
func flipped(data []byte, position int) []byte {
	other := bytes.Clone(data)
	other[position] ^= 1
	return other
}

// everyByte demands that verify holds for data and for no copy of it in which one byte is changed.
func everyByte(data []byte, verify func([]byte) error) error {
	if err := verify(data); err != nil {
		return fmt.Errorf("the original: %w", err)
	}
	for position := range data {
		if verify(flipped(data, position)) == nil {
			return fmt.Errorf("byte %d of %d (%q) changed: %w", position, len(data), data[position], errAccepted)
		}
	}
	return nil
}

// refusedAtSomeSize runs fsck at each size that the log has had; a file that no size needs would never be refused.
func refusedAtSomeSize(l *publishedLog) bool {
	return slices.ContainsFunc(l.Sizes, func(size uint64) bool { return runFsck(l, size, l.ed25519) != nil })
}

// changedFiles changes bytes of each file of the log in turn, and puts each back.
func changedFiles(l *publishedLog) error {
	if refusedAtSomeSize(l) {
		return errors.New("the original is refused")
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(l.root(), "tile"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files++
		return changedFile(l, path)
	})
	if err == nil && files == 0 {
		err = errors.New("the log has no tiles")
	}
	return err
}

func changedFile(l *publishedLog, path string) error {
	original, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	for _, position := range []int{0, len(original) / 2, len(original) - 1} {
		if err := replaceFile(path, flipped(original, position), info.Mode()); err != nil {
			return err
		}
		refused := refusedAtSomeSize(l)
		if err := replaceFile(path, original, info.Mode()); err != nil {
			return err
		}
		if !refused {
			return fmt.Errorf("byte %d of %s changed: %w", position, path, errAccepted)
		}
	}
	return nil
}

// replaceFile does not open the old file for writing: tiles may be read-only.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.WriteFile(path, data, mode)
}

func strangers(l *publishedLog) error {
	if len(l.strangers) == 0 {
		return errors.New("there are no strangers' keys to try")
	}
	for _, key := range l.strangers {
		if runFsck(l, l.newest(), key) == nil {
			return errAccepted
		}
	}
	return nil
}

func exchangedProofs(l *publishedLog) error {
	for position, index := range l.Indexes {
		other := l.Indexes[(position+1)%len(l.Indexes)]
		entry, err := l.entry(index)
		if err != nil {
			return err
		}
		if verifyProofFile(l, l.proofs[other], entry) == nil {
			return fmt.Errorf("the proof of leaf %d for leaf %d: %w", other, index, errAccepted)
		}
	}
	return nil
}

func changedConsistency(l *publishedLog, verify consistencyChecker) error {
	for _, c := range l.Consistency {
		oldRoot, newRoot := l.heads[c.Old].Hash, l.heads[c.New].Hash
		cases := map[string]func() error{
			"the roots exchanged":  func() error { return verify(c, newRoot, oldRoot) },
			"the old root changed": func() error { return verify(c, flipped(oldRoot, 0), newRoot) },
			"the new root changed": func() error { return verify(c, oldRoot, flipped(newRoot, 31)) },
			"a hash added": func() error {
				return verify(consistencyProof{c.Old, c.New, append(slices.Clone(c.Proof), newRoot)}, oldRoot, newRoot)
			},
			"a hash missing": func() error {
				return verify(consistencyProof{c.Old, c.New, c.Proof[:len(c.Proof)-1]}, oldRoot, newRoot)
			},
		}
		for position := range c.Proof {
			cases[fmt.Sprintf("hash %d changed", position)] = func() error {
				other := slices.Clone(c.Proof)
				other[position] = flipped(other[position], 7)
				return verify(consistencyProof{c.Old, c.New, other}, oldRoot, newRoot)
			}
		}
		for what, run := range cases {
			if run() == nil {
				return fmt.Errorf("from %d to %d, %s: %w", c.Old, c.New, what, errAccepted)
			}
		}
	}
	return nil
}
