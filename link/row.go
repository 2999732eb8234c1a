package link

import (
	"encoding/json"
	"fmt"

	"yakumo/link/linkpb"
	"yakumo/model"
)

// newRow gives an empty row of the kind.
func newRow(k model.RowKind) (model.HostRow, error) {
	switch k {
	case model.RowServer:
		return new(model.HostServer), nil
	case model.RowPort:
		return new(model.HostPort), nil
	case model.RowPeer:
		return new(model.HostPeer), nil
	case model.RowNetwork:
		return new(model.HostNetwork), nil
	case model.RowGroup:
		return new(model.HostGroup), nil
	case model.RowMember:
		return new(model.HostMember), nil
	case model.RowRouter:
		return new(model.HostRouter), nil
	case model.RowFloating:
		return new(model.HostFloating), nil
	case model.RowAddresses:
		return new(model.HostAddresses), nil
	case model.RowVolume:
		return new(model.HostVolume), nil
	case model.RowMirror:
		return new(model.HostMirror), nil
	}
	return nil, fmt.Errorf("unknown kind of row %q: is this agent older than the server?", k)
}

// EncodeRow gives a row's kind and JSON, as they travel and as a host's ledger keeps them.
func EncodeRow(r model.HostRow) (model.RowKind, []byte, error) {
	b, err := json.Marshal(r)
	return r.RowID().Kind, b, err
}

// DecodeRow is EncodeRow's inverse.
func DecodeRow(kind model.RowKind, body []byte) (model.HostRow, error) {
	r, err := newRow(kind)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, r); err != nil {
		return nil, fmt.Errorf("row of kind %s: %w", kind, err)
	}
	return r, nil
}

func encodeBatch(b model.HostBatch) (*linkpb.Rows, error) {
	out := &linkpb.Rows{Full: b.Full, Generation: b.Generation, Told: b.Told}
	out.Upserts = make([]*linkpb.Row, len(b.Upserts))
	for i, r := range b.Upserts {
		if len(b.Bodies) == len(b.Upserts) {
			out.Upserts[i] = &linkpb.Row{Kind: string(r.RowID().Kind), Body: b.Bodies[i]}
			continue
		}
		kind, body, err := EncodeRow(r)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", r.RowID(), err)
		}
		out.Upserts[i] = &linkpb.Row{Kind: string(kind), Body: body}
	}
	for _, id := range b.Removes {
		out.Removes = append(out.Removes, &linkpb.RowRef{Kind: string(id.Kind), Key: id.Key})
	}
	return out, nil
}

func decodeBatch(p *linkpb.Rows) (model.HostBatch, error) {
	b := model.HostBatch{Full: p.Full, Generation: p.Generation, Told: p.Told}
	for _, r := range p.Upserts {
		row, err := DecodeRow(model.RowKind(r.Kind), r.Body)
		if err != nil {
			return b, err
		}
		b.Upserts, b.Bodies = append(b.Upserts, row), append(b.Bodies, r.Body)
	}
	for _, r := range p.Removes {
		b.Removes = append(b.Removes, model.RowID{Kind: model.RowKind(r.Kind), Key: r.Key})
	}
	return b, nil
}
