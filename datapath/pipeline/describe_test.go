package pipeline_test

import (
	"os"
	"testing"

	"yakumo/datapath/pipeline"
)

func TestPageIsFresh(t *testing.T) {
	want, err := pipeline.Describe()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/pipeline.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/pipeline.md is stale: run go generate ./datapath/pipeline")
	}
}

// Every stage, field and feature has a name and a text, and stages are in order.
func TestNames(t *testing.T) {
	last := -1
	for _, s := range pipeline.Stages() {
		if int(s.Stage) <= last || s.Name == "" || s.Text == "" {
			t.Errorf("stage %+v", s)
		}
		last = int(s.Stage)
	}
	for _, c := range []struct{ at, next pipeline.Stage }{
		{pipeline.Classify, pipeline.AntiSpoof}, {pipeline.Respond, pipeline.TrackOut}, {pipeline.TrackOut, pipeline.Admit}, {pipeline.AcceptOut, pipeline.Admit}, {pipeline.Admit, pipeline.Lookup},
		{pipeline.Lookup, pipeline.TrackIn}, {pipeline.AcceptIn, pipeline.TapIn}, {pipeline.TapIn, pipeline.Output}, {pipeline.AntiSpoof, pipeline.TapOut}, {pipeline.Output, pipeline.Output},
	} {
		if got := pipeline.Next(c.at); got != c.next {
			t.Errorf("after %v comes %v, want %v", c.at, got, c.next)
		}
	}
}
