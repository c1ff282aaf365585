package container

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"ghostlight/internal/event"
)

// Names finds the names of containers, without asking a daemon:
//
//	a monitor's arguments   conmon -c ID -n NAME; containerd-shim -namespace NS -id ID
//	docker                  ROOT/containers/ID/config.v2.json
//	podman, cri-o           ROOT/*-containers/containers.json and volatile-containers.json
//	containerd              STATE/NS/ID/config.json: annotations of the Kubernetes runtime interface and nerdctl
//
// It is used by one goroutine.
type Names struct {
	docker   []string
	storage  []string
	state    []string // of containerd: its tasks
	monitors map[string]monitor
}

// monitor is what the process that watches a container tells by its arguments.
type monitor struct {
	name, namespace string
	containerd      bool
}

const (
	maxMonitors = 4096
	maxRoots    = 16
	maxFile     = 8 << 20
)

// NewNames returns a finder that looks for docker's and for the storage
// library's files below the given roots, and wherever monitors point to.
func NewNames(docker, storage []string) *Names {
	if docker == nil {
		docker = dockerRoots("/etc/docker/daemon.json")
	}
	if storage == nil {
		storage = []string{"/var/lib/containers/storage"}
	}
	return &Names{
		docker: docker, storage: storage,
		state:    []string{"/run/containerd/io.containerd.runtime.v2.task"},
		monitors: map[string]monitor{},
	}
}

// dockerRoots returns docker's default and what its configuration says.
func dockerRoots(file string) []string {
	roots := []string{"/var/lib/docker"}
	var config struct {
		Root string `json:"data-root"`
	}
	if readJSON(file, &config) == nil && config.Root != "" && config.Root != roots[0] {
		roots = append(roots, config.Root)
	}
	return roots
}

// IsMonitor reports whether a program is one that Observe learns from.
func IsMonitor(name string) bool {
	return name == "conmon" || strings.HasPrefix(name, "containerd-shim") || name == "dockerd"
}

// Observe learns from a monitor: its name, its arguments joined by NUL, and
// its working directory.
func (n *Names) Observe(name, args, cwd string) {
	flags := parseFlags(args)
	switch {
	case name == "conmon":
		n.conmon(flags)
	case name == "dockerd":
		addRoot(&n.docker, flags["data-root"])
		addRoot(&n.docker, flags["g"])
	default:
		n.shim(flags, cwd)
	}
}

func (n *Names) conmon(flags map[string]string) {
	id := first(flags["c"], flags["cid"])
	n.add(id, monitor{name: first(flags["n"], flags["name"])})
	// BUNDLE is ROOT/overlay-containers/ID/userdata.
	bundle := first(flags["b"], flags["bundle"])
	if containers := filepath.Dir(filepath.Dir(bundle)); strings.HasSuffix(containers, "-containers") {
		addRoot(&n.storage, filepath.Dir(containers))
	}
}

func (n *Names) shim(flags map[string]string, cwd string) {
	id, namespace := flags["id"], flags["namespace"]
	if id == "" || namespace == "" {
		return
	}
	n.add(id, monitor{namespace: namespace, containerd: true})
	if tasks, ok := strings.CutSuffix(cwd, "/"+namespace+"/"+id); ok { // a shim runs in its bundle
		addRoot(&n.state, tasks)
	}
}

func (n *Names) add(id string, m monitor) {
	if id == "" {
		return
	}
	if len(n.monitors) >= maxMonitors {
		clear(n.monitors)
	}
	n.monitors[id] = m
}

func addRoot(roots *[]string, root string) {
	if root == "" || len(*roots) >= maxRoots {
		return
	}
	for _, r := range *roots {
		if r == root {
			return
		}
	}
	*roots = append(*roots, root)
}

// parseFlags reads -n value, --name value and --name=value.
func parseFlags(args string) map[string]string {
	flags := map[string]string{}
	words := strings.Split(args, "\x00")
	for i := 1; i < len(words); i++ {
		name, value, ok := strings.Cut(strings.TrimLeft(words[i], "-"), "=")
		switch {
		case !strings.HasPrefix(words[i], "-"):
		case ok:
			flags[name] = value
		case i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") && flags[name] == "":
			flags[name] = words[i+1]
		}
	}
	return flags
}

// Place completes p, which Parse made of path, by what monitors tell: the ids
// of containers that containerd was given by name have no form of their own.
func (n *Names) Place(path string, p Place) Place {
	if p.ID != "" || len(n.monitors) == 0 {
		return p
	}
	rest := strings.TrimSuffix(path, " (deleted)")
	for rest != "" && rest != "/" {
		dir, id := filepath.Split(rest)
		rest = strings.TrimSuffix(dir, "/")
		m, ok := n.monitors[id]
		if ok && m.containerd && strings.HasSuffix(rest, "/"+m.namespace) {
			p.ID, p.Runtime, p.Unit = id, "containerd", ""
			break
		}
	}
	return p
}

// answer is what one source knows about a container.
type answer struct{ name, runtime, pod string }

// Find returns the container at p. found is false if its name is not known;
// the files may come later.
func (n *Names) Find(p Place) (c event.Container, found bool) {
	c = event.Container{ID: p.ID, Runtime: p.Runtime, PodUID: p.PodUID}
	if p.Runtime == "lxc" {
		c.Name = p.ID
		return c, true
	}
	if !safe(p.ID) {
		return c, false
	}
	for _, source := range []func(id string) (answer, bool){n.fromMonitor, n.fromDocker, n.fromStorage, n.fromTasks} {
		if a, ok := source(p.ID); ok {
			return a.complete(c), true
		}
	}
	return c, false
}

// Monitored is Find without looking at files.
func (n *Names) Monitored(p Place) (c event.Container, found bool) {
	a, ok := n.fromMonitor(p.ID)
	return a.complete(event.Container{ID: p.ID, Runtime: p.Runtime, PodUID: p.PodUID}), ok
}

func (a answer) complete(c event.Container) event.Container {
	a = a.kubernetes()
	c.Name = a.name
	c.Runtime = first(c.Runtime, a.runtime)
	c.PodUID = first(c.PodUID, a.pod)
	return c
}

// kubernetes takes apart the names that the kubelet gave to docker and that
// cri-o still gives: k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT.
func (a answer) kubernetes() answer {
	parts := strings.Split(a.name, "_")
	if len(parts) != 6 || parts[0] != "k8s" || !isUID(parts[4]) {
		return a
	}
	a.name, a.pod = parts[1], parts[4]
	return a
}

func (n *Names) fromMonitor(id string) (answer, bool) {
	m, ok := n.monitors[id]
	switch {
	case !ok:
		return answer{}, false
	case m.containerd && !isID(id):
		return answer{name: id, runtime: "containerd"}, true
	case m.name == "":
		return answer{}, false
	case strings.HasPrefix(m.name, "k8s_"):
		return answer{name: m.name, runtime: "cri-o"}, true
	}
	return answer{name: m.name, runtime: "podman"}, true
}

func (n *Names) fromDocker(id string) (answer, bool) {
	for _, root := range n.docker {
		var config struct {
			Name   string
			Config struct{ Labels map[string]string }
		}
		if readJSON(filepath.Join(root, "containers", id, "config.v2.json"), &config) != nil || config.Name == "" {
			continue
		}
		labels := config.Config.Labels
		return answer{
			name:    first(labels["io.kubernetes.container.name"], strings.TrimPrefix(config.Name, "/")),
			runtime: "docker",
			pod:     labels["io.kubernetes.pod.uid"],
		}, true
	}
	return answer{}, false
}

// drivers of the storage library name the folders of their containers.
var drivers = []string{"overlay", "vfs", "btrfs", "zfs", "aufs"}

func (n *Names) fromStorage(id string) (answer, bool) {
	for _, root := range n.storage {
		for _, driver := range drivers {
			for _, file := range []string{"containers.json", "volatile-containers.json"} {
				if name := stored(filepath.Join(root, driver+"-containers", file), id); name != "" {
					return answer{name: name, runtime: "podman"}, true
				}
			}
		}
	}
	return answer{}, false
}

func stored(file, id string) string {
	var containers []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	if readJSON(file, &containers) != nil {
		return ""
	}
	for _, c := range containers {
		if c.ID == id && len(c.Names) > 0 {
			return c.Names[0]
		}
	}
	return ""
}

func (n *Names) fromTasks(id string) (answer, bool) {
	for _, state := range n.state {
		namespaces, err := os.ReadDir(state)
		if err != nil {
			continue
		}
		for _, namespace := range namespaces {
			var spec struct {
				Annotations map[string]string `json:"annotations"`
			}
			if readJSON(filepath.Join(state, namespace.Name(), id, "config.json"), &spec) != nil {
				continue
			}
			return taskAnswer(namespace.Name(), id, spec.Annotations), true
		}
	}
	return answer{}, false
}

func taskAnswer(namespace, id string, notes map[string]string) answer {
	a := answer{
		name:    first(notes["io.kubernetes.cri.container-name"], notes["nerdctl/name"]),
		runtime: "containerd",
		pod:     notes["io.kubernetes.cri.sandbox-uid"],
	}
	if namespace == "moby" {
		a.runtime = "docker"
	}
	if a.name == "" && !isID(id) {
		a.name = id
	}
	return a
}

// safe reports whether id can be the name of a file.
func safe(id string) bool {
	return id != "" && id[0] != '.' && !strings.ContainsAny(id, "/\x00")
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// readJSON reads a file of bounded size into v.
func readJSON(file string, v any) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return errTooLarge
	}
	return json.Unmarshal(b, v)
}

var errTooLarge = errors.New("the file is larger than 8 MiB")
