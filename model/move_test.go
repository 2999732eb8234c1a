package model

import "testing"

// TestPartOfAMove: each host is told what it is to do now, and never more.
func TestPartOfAMove(t *testing.T) {
	type part struct {
		role  MoveRole
		stage MoveStage
	}
	none := part{}
	for _, x := range []struct {
		kind           MoveKind
		stage          MoveStage
		source, target part
	}{
		{MoveLive, MovePlacing, none, none},
		{MoveLive, MovePreparing, part{RoleSource, MovePreparing}, part{RoleTarget, MovePreparing}},
		{MoveLive, MoveRunning, part{RoleSource, MoveRunning}, part{RoleTarget, MoveRunning}},
		{MoveLive, MoveLeaving, part{RoleSource, MoveRunning}, none},
		{MoveCold, MovePreparing, part{RoleSource, MoveRunning}, part{RoleTarget, MovePreparing}},
		{MoveResize, MovePreparing, part{RoleSource, MoveRunning}, part{RoleTarget, MovePreparing}},
		{MoveCold, MoveRunning, part{RoleSource, MoveRunning}, part{RoleTarget, MoveRunning}},
		{MoveCold, MoveVerify, part{RoleSource, MoveVerify}, none},
		{MoveResize, MoveReverting, part{RoleSource, MoveVerify}, part{RoleTarget, MoveReverting}},
		{MoveEvacuate, MovePlacing, none, none},
	} {
		m := &Move{Kind: x.kind, Stage: x.stage, Source: "a", Target: "b"}
		for host, want := range map[ID]part{"a": x.source, "b": x.target, "c": none, "": none} {
			if role, stage := m.Part(host); (part{role, stage}) != want {
				t.Errorf("%s, %s, host %q: %s, %s; want %+v", x.kind, x.stage, host, role, stage, want)
			}
		}
	}
}
