package store

import "fmt"

// PutJSON writes a row of the kind from its JSON, as Table.Put does: for tools and tests
// that know a row's kind only at run time.
func (s *Store) PutJSON(tx *Tx, kind Kind, body []byte) error {
	t, ok := s.tables[kind]
	if !ok {
		return fmt.Errorf("there is no table %q", kind)
	}
	row, err := t.decode(body)
	if err != nil {
		return err
	}
	return tx.put(t, t.keyOf(row), row, nil)
}

// GetAny gives the row of the kind with the key, and false where there is none.
func (s *Store) GetAny(r Reader, kind Kind, key string) (any, bool) {
	if _, ok := s.tables[kind]; !ok {
		return nil, false
	}
	r.read(kind, key)
	e := r.state().get(kind, key)
	if e == nil {
		return nil, false
	}
	return e.val, true
}
