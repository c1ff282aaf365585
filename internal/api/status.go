package api

import "time"

// Status is what the agent says about itself at one moment.
type Status struct {
	Version     string    `json:"version"`
	Host        Host      `json:"host"`
	Started     time.Time `json:"started"`
	UptimeNS    int64     `json:"uptime_ns"`
	Agent       Cost      `json:"agent"`
	Events      Events    `json:"events"`
	Lost        Lost      `json:"lost"`
	Budget      Budget    `json:"budget"`
	Store       Store     `json:"store"`
	Sensors     []Sensor  `json:"sensors"`
	Programs    []Program `json:"programs"`
	FeaturesOff int       `json:"features_off"` // hooks that no tier serves
}

// Host is the machine the agent watches.
type Host struct {
	Name   string `json:"name"`
	Kernel string `json:"kernel"`
	Arch   string `json:"arch"`
	BootID string `json:"boot_id"`
	// BootTime places start times, which are counted from the boot.
	BootTime time.Time `json:"boot_time"`
}

// Cost is what the agent's own process takes. CPU is a share of one core, BPF
// programs not included.
type Cost struct {
	CPUPercent float64 `json:"cpu_percent"`
	RSSBytes   int64   `json:"rss_bytes"`
}

// Events counts records since the start, and their rate of late.
type Events struct {
	Total     uint64  `json:"total"`
	PerSecond float64 `json:"per_second"`
}

// Lost counts records that are missing since the start.
type Lost struct {
	Total   uint64      `json:"total"`
	ByStage []LostStage `json:"by_stage"`
}

// LostStage says where they went missing. Stage is as in event.Lost.
type LostStage struct {
	Stage  string `json:"stage"`
	Sensor string `json:"sensor,omitempty"`
	Count  uint64 `json:"count"`
}

// The states of a budget.
const (
	BudgetOK       = "ok"
	BudgetShedding = "shedding"
)

// Budget compares the cost of the whole, programs included, with its limits. A
// limit of 0 is none.
type Budget struct {
	State            string   `json:"state"`
	CPUPercent       float64  `json:"cpu_percent"`
	CPULimitPercent  float64  `json:"cpu_limit_percent"`
	MemoryBytes      int64    `json:"memory_bytes"`
	MemoryLimitBytes int64    `json:"memory_limit_bytes"`
	Shed             []string `json:"shed"` // sensors let go, first one first
}

// Store says what is kept. Error is set while the store cannot write.
type Store struct {
	Bytes          int64      `json:"bytes"`
	Rows           int64      `json:"rows"`
	Oldest         *time.Time `json:"oldest,omitempty"`
	Newest         *time.Time `json:"newest,omitempty"`
	RetentionNS    int64      `json:"retention_ns"`
	RetentionBytes int64      `json:"retention_bytes"`
	Error          string     `json:"error,omitempty"`
}

// The states of a sensor: shed was let go for the budget, failed could not
// attach or broke, off was never asked for.
const (
	SensorRunning = "running"
	SensorShed    = "shed"
	SensorFailed  = "failed"
	SensorOff     = "off"
)

// Sensor is one sensor and how it fares.
type Sensor struct {
	Name   string `json:"name"`
	Doc    string `json:"doc"`
	State  string `json:"state"`
	Error  string `json:"error,omitempty"`
	Events uint64 `json:"events"`
	Lost   uint64 `json:"lost"`
}

// Program is one BPF program and its cost over the last window in which the
// kernel measured it. CPU is a share of one core.
type Program struct {
	Name       string  `json:"name"`
	Sensor     string  `json:"sensor"`
	Runs       uint64  `json:"runs"`
	NSPerRun   float64 `json:"ns_per_run"`
	CPUPercent float64 `json:"cpu_percent"`
}

// Doctor is everything this host can and cannot do, and what each lack costs.
// OK is false if nothing at all can run.
type Doctor struct {
	OK       bool           `json:"ok"`
	Kernel   string         `json:"kernel"`
	Arch     string         `json:"arch"`
	Lockdown string         `json:"lockdown"` // none, integrity, confidentiality or unknown
	User     User           `json:"user"`
	Probes   []Probe        `json:"probes"`
	Sensors  []SensorReport `json:"sensors"`
	Notes    []string       `json:"notes"`
}

// User is who runs the agent, and the capabilities it has and lacks.
type User struct {
	UID          int      `json:"uid"`
	Capabilities []string `json:"capabilities"`
	Missing      []string `json:"missing"`
}

// Probe is one question to the kernel and its answer.
type Probe struct {
	Name   string `json:"name"`
	Since  string `json:"since"` // first kernel release that has it
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
	Loss   string `json:"loss"` // what the user misses without it
}

// SensorReport tells what became of a sensor's hooks. OK is false if none of
// them is attached.
type SensorReport struct {
	Name  string `json:"name"`
	Doc   string `json:"doc"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	Hooks []Hook `json:"hooks"`
	// Sights are the programs and libraries that it looks into, or cannot.
	Sights []Sight `json:"sights,omitempty"`
}

// Sight says whether a sensor sees into a program or library, and for which
// processes that matters: some of them, if they are many.
type Sight struct {
	File string   `json:"file"`
	Kind string   `json:"kind"` // what was found in it
	PIDs []uint32 `json:"pids"`
	OK   bool     `json:"ok"`
	Note string   `json:"note"` // how, or why not
}

// Hook is one thing a sensor wants to see. Tier is the way that was taken, and
// empty if none works; Without says what the user then misses.
type Hook struct {
	What    string `json:"what"`
	Without string `json:"without"`
	Tier    string `json:"tier"`
	Tiers   []Tier `json:"tiers"`
}

// Tier is one way to see it. Reason says why it was not taken.
type Tier struct {
	Name   string `json:"name"`
	Taken  bool   `json:"taken"`
	Reason string `json:"reason,omitempty"`
}
