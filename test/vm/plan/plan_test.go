package plan

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func sample() []Frame {
	return []Frame{
		{Seq: 1, Note: "up"},
		{Seq: 2, Job: "a", Out: "\x16=== RUN   TestX\n"},
		{Seq: 3, Job: "a", Out: "no newline, <&> and \x00"},
		{Seq: 4, Job: "a", End: &End{Code: 1, Error: "exit status 1", Elapsed: time.Second}},
		{Seq: 5, Done: true},
	}
}

func encode(t testing.TB, frames []Frame) []byte {
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, f := range frames {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func read(t testing.TB, in []byte) (got []Frame, lost int) {
	lost, err := Read(bytes.NewReader(in), func(f Frame) { got = append(got, f) })
	if err != nil {
		t.Fatal(err)
	}
	return got, lost
}

func seqs(frames []Frame) (n []int) {
	for _, f := range frames {
		n = append(n, f.Seq)
	}
	return n
}

func TestRoundTrip(t *testing.T) {
	got, lost := read(t, encode(t, sample()))
	if lost != 0 || len(got) != 5 {
		t.Fatalf("%d frames, %d lost", len(got), lost)
	}
	for i, want := range sample() {
		if got[i].Out != want.Out || got[i].Note != want.Note || got[i].Done != want.Done {
			t.Errorf("frame %d: %+v, want %+v", i, got[i], want)
		}
	}
	if *got[3].End != *sample()[3].End {
		t.Errorf("end: %+v", got[3].End)
	}
}

// A terminal adds carriage returns; a dying machine stops anywhere.
func TestTorn(t *testing.T) {
	whole := string(encode(t, sample()))
	lines := strings.SplitAfter(whole, "\n")
	for name, c := range map[string]struct {
		in   string
		seqs []int
		lost int
	}{
		"carriage returns": {strings.ReplaceAll(whole, "\n", "\r\n"), []int{1, 2, 3, 4, 5}, 0},
		"cut in a line":    {whole[:len(whole)-5], []int{1, 2, 3, 4}, 1},
		"missing line":     {lines[0] + lines[1] + lines[3] + lines[4], []int{1, 2, 4, 5}, 1},
		"foreign line":     {lines[0] + "Oops: 0000\n" + lines[1], []int{1, 2}, 1},
		"glued lines":      {lines[0] + lines[1][:10] + lines[2] + lines[3], []int{1, 4}, 3},
		"repeated line":    {lines[0] + lines[0] + lines[1], []int{1, 2}, 1},
		"endless line":     {lines[0] + strings.Repeat("x", 3*MaxLine) + "\n" + lines[1], []int{1, 2}, 1},
		"absurd number":    {lines[0] + `{"seq":99999999999}` + "\n" + lines[1], []int{1, 2}, 1},
		"empty":            {"", nil, 0},
	} {
		got, lost := read(t, []byte(c.in))
		if !slices.Equal(seqs(got), c.seqs) || lost != c.lost {
			t.Errorf("%s: frames %v, %d lost; want %v, %d lost", name, seqs(got), lost, c.seqs, c.lost)
		}
	}
}

// Whatever is cut out, no frame is invented and a hole before the last frame
// is counted.
func TestHoles(t *testing.T) {
	whole := encode(t, sample())
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		from := r.IntN(len(whole))
		to := min(len(whole), from+1+r.IntN(200))
		got, lost := read(t, slices.Concat(whole[:from], whole[to:]))
		for _, f := range got {
			if f.Seq > 5 || f.Out != sample()[f.Seq-1].Out || f.Done != (f.Seq == 5) {
				t.Fatalf("cut %d:%d: frame %+v was never sent", from, to, f)
			}
		}
		if !slices.IsSorted(seqs(got)) {
			t.Fatalf("cut %d:%d: frames %v", from, to, seqs(got))
		}
		if n := len(got); n > 0 && got[n-1].Done && n < 5 && lost == 0 {
			t.Fatalf("cut %d:%d: frames %v, none lost", from, to, seqs(got))
		}
	}
}

// The longest output must fit, however JSON escapes it.
func TestLongestFrame(t *testing.T) {
	long := strings.Repeat("\x01", MaxOut)
	got, lost := read(t, encode(t, []Frame{{Job: "a/long/name", Out: long}}))
	if lost != 0 || len(got) != 1 || got[0].Out != long {
		t.Fatalf("%d frames, %d lost", len(got), lost)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encode(f, sample()))
	f.Add([]byte("{\"seq\":1}\r\nOops\n{\"seq\":3"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, lost := read(t, in)
		for i, f := range got {
			if i > 0 && f.Seq <= got[i-1].Seq {
				t.Fatalf("frames %v out of order", seqs(got))
			}
		}
		if lost < 0 {
			t.Fatalf("%d lost", lost)
		}
	})
}
