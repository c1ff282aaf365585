package http2

import (
	"testing"

	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzHTTP2(f *testing.F) { story.Fuzz(f, Proto) }
