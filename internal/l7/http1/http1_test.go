package http1

import (
	"testing"

	"ghostlight/test/story"
)

func TestStories(t *testing.T) { story.Run(t, Proto) }

func FuzzHTTP1(f *testing.F) { story.Fuzz(f, Proto) }
