package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"yakumo/fault"
)

func TestKindSurvivesWrapping(t *testing.T) {
	cause := errors.New("disk on fire")
	err := fmt.Errorf("create port: %w", fault.Wrap(fault.Conflict, cause, "Address %s is in use.", "10.0.0.3"))
	if got := fault.KindOf(err); got != fault.Conflict {
		t.Errorf("KindOf = %v, want conflict", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
	if text, ok := fault.Text(err); !ok || text != "Address 10.0.0.3 is in use." {
		t.Errorf("Text = %q, %v", text, ok)
	}
}

func TestInternalErrorsShowNothing(t *testing.T) {
	for _, err := range []error{errors.New("x"), fault.New(fault.Internal, "secret")} {
		if text, ok := fault.Text(err); ok {
			t.Errorf("Text(%v) shows %q", err, text)
		}
		if fault.KindOf(err) != fault.Internal {
			t.Errorf("KindOf(%v) is not internal", err)
		}
	}
}

func TestEveryKindHasAName(t *testing.T) {
	seen := map[string]bool{}
	for k := fault.Internal; k <= fault.NotImplemented; k++ {
		if name := k.String(); name == "" || seen[name] {
			t.Errorf("kind %d has no name of its own: %q", k, name)
		} else {
			seen[name] = true
		}
	}
}
