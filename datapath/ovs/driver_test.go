package ovs_test

import (
	"testing"

	"yakumo/datapath/dptest"
)

func TestConformance(t *testing.T) { dptest.Run(t, newFabric(t)) }
