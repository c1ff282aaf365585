package wire

// Chunk mirrors struct l7_chunk: bytes that one call moved through a socket.
// Captured bytes of them follow it.
type Chunk struct {
	H         Header
	Ends      Ends
	Ready     uint64
	Offset    uint64
	Goroutine uint64
	Waker     uint64
	Seq       uint32
	Len       uint32
	Captured  uint16
	Flags     ChunkFlag
	Proto     uint8
	Transport uint8
	Reserved  [3]uint8
}

// Ends mirrors struct l7_ends: who speaks with whom. Ports are in network order.
type Ends struct {
	Conn       uint64
	Local      [16]uint8
	Remote     [16]uint8
	Netns      uint32
	LocalPort  [2]uint8
	RemotePort [2]uint8
}

// ChunkType is the type of such a record, in every sensor that makes them.
const ChunkType = 1

// ChunkFlag mirrors enum l7_flag.
type ChunkFlag uint8

// The flags.
const (
	ChunkSent ChunkFlag = 1 << iota
	ChunkPlain
	ChunkClosed
	ChunkOpened
)
