// Package pipeline turns host rows into the entries of one logical packet pipeline. It
// is a pure library: Compile maps a row, and the rows it refers to, to entries in a small
// vocabulary of stages, matches and actions that knows no switch; Program keeps the
// entries of a changing set of rows and tells what one change adds and deletes.
//
// It owns the order of stages, the meaning of every field and the priorities. It reads rows
// and an ordinal store, writes nothing, and must not import a driver or a wire protocol.
//
//go:generate go run ./gen -o ../../docs/pipeline.md
package pipeline
