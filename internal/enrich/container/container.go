// Package container says which container or systemd unit a cgroup is, by its
// path and by the files that the container engines keep. It asks no daemon.
package container

import (
	"bytes"
	"strings"
)

// Place is what the path of a cgroup tells.
type Place struct {
	ID      string // of the innermost container
	Runtime string // docker, containerd, cri-o, podman or lxc; empty if the path doesn't say
	PodUID  string // of the Kubernetes pod around it
	Unit    string // innermost systemd unit inside the container, or outside of containers: nginx.service
}

// Parse reads the path of a cgroup, from the hierarchy's root. The innermost
// container wins, as in docker in docker.
func Parse(path string) Place {
	path = strings.TrimSuffix(path, " (deleted)")
	var p Place
	previous := ""
	for segment := range strings.SplitSeq(path, "/") {
		p.descend(previous, segment)
		if segment != "" {
			previous = segment
		}
	}
	return p
}

// descend takes one step down the path.
func (p *Place) descend(parent, segment string) {
	if _, rest, ok := strings.Cut(segment, ".slice:"); ok { // a systemd path that runc's cgroupfs driver took literally
		p.pod(segment[:len(segment)-len(rest)-1])
		segment = strings.Replace(rest, ":", "-", 1) + ".scope"
	}
	if id, runtime, ok := containerOf(parent, segment); ok {
		p.ID, p.Runtime, p.Unit = id, runtime, ""
		return
	}
	if p.pod(segment) {
		return
	}
	switch {
	case isMonitor(segment):
		p.Unit = ""
	case strings.HasSuffix(segment, ".service"), strings.HasSuffix(segment, ".scope"), strings.HasSuffix(segment, ".socket"):
		p.Unit = segment
	}
}

// scopes are what runtimes put before the id in the name of a cgroup.
var scopes = []struct{ prefix, runtime string }{
	{"cri-containerd-", "containerd"},
	{"docker-", "docker"},
	{"crio-", "cri-o"},
	{"libpod-", "podman"},
	{"libpod-payload-", "podman"},
	{"nerdctl-", "containerd"},
}

func containerOf(parent, segment string) (id, runtime string, ok bool) {
	name := strings.TrimSuffix(segment, ".scope")
	for _, s := range scopes {
		if id, ok := strings.CutPrefix(name, s.prefix); ok && isID(id) {
			return id, s.runtime, true
		}
	}
	if isID(segment) && !strings.HasPrefix(parent, "libpod_parent") { // there it is a podman pod
		return segment, parents[parent], true
	}
	if n := len(segment); n > 33 && segment[32] == '-' && isHex(segment[:32]) && isDigits(segment[33:]) {
		return segment, "docker", true // Amazon ECS: task id and a number
	}
	if id, ok := strings.CutPrefix(segment, "lxc.payload."); ok && id != "" {
		return id, "lxc", true
	}
	if parent == "lxc" && segment != "" {
		return segment, "lxc", true
	}
	return "", "", false
}

// parents are the cgroups below which a runtime puts bare ids.
var parents = map[string]string{"docker": "docker", "ecs": "docker", "default": "containerd", "k8s.io": "containerd", "moby": "docker"}

// pod notes the uid of a Kubernetes pod: pod<uid> by the kubelet's cgroupfs
// driver, kubepods-burstable-pod<uid with underscores>.slice by its systemd
// driver.
func (p *Place) pod(segment string) bool {
	name := strings.TrimSuffix(segment, ".slice")
	if name != segment {
		at := strings.LastIndex(name, "-pod")
		if at < 0 || !strings.Contains(name[:at], "kubepods") {
			return false
		}
		name = name[at+1:]
	}
	uid, ok := strings.CutPrefix(name, "pod")
	uid = strings.ReplaceAll(uid, "_", "-")
	if !ok || !isUID(uid) {
		return false
	}
	p.PodUID, p.ID, p.Runtime, p.Unit = uid, "", "", ""
	return true
}

// isMonitor reports the cgroup of a container's monitor, which is not in the
// container.
func isMonitor(segment string) bool {
	return strings.HasPrefix(segment, "libpod-conmon-") || strings.HasPrefix(segment, "crio-conmon-")
}

func isID(s string) bool { return len(s) == 64 && isHex(s) }

// isUID reports the uid of a pod: a UUID, or of a static pod 32 hex digits.
func isUID(s string) bool {
	return (len(s) == 36 && s[8] == '-' && s[13] == '-' && isHex(strings.ReplaceAll(s, "-", ""))) || (len(s) == 32 && isHex(s))
}

func isHex(s string) bool    { return strings.Trim(s, "0123456789abcdef") == "" }
func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// hierarchies of cgroup v1, in the order in which their paths are believed.
var hierarchies = []string{"name=systemd", "pids", "memory", "cpu", "cpuacct", "devices", "freezer", "blkio"}

// Choose returns the path that tells most in the text of /proc/PID/cgroup:
// that of the unified hierarchy if it names a container, else that of a v1
// hierarchy that does; then the same for systemd units.
func Choose(text []byte) string {
	paths := candidates(text)
	if len(paths) == 0 {
		return ""
	}
	for _, tells := range []func(Place) bool{
		func(p Place) bool { return p.ID != "" },
		func(p Place) bool { return p.PodUID != "" || p.Unit != "" },
		func(p Place) bool { return false },
	} {
		for _, path := range paths {
			if tells(Parse(path)) {
				return path
			}
		}
	}
	for _, path := range paths {
		if path != "/" {
			return path
		}
	}
	return paths[0]
}

// candidates are the paths in the order in which they are believed.
func candidates(text []byte) []string {
	var unified string
	v1 := make([]string, len(hierarchies))
	for line := range bytes.Lines(text) {
		id, rest, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), ":")
		controllers, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		path = strings.TrimSuffix(path, " (deleted)")
		if id == "0" && controllers == "" {
			unified = path
			continue
		}
		for controller := range strings.SplitSeq(controllers, ",") {
			for i, name := range hierarchies {
				if controller == name && v1[i] == "" {
					v1[i] = path
				}
			}
		}
	}
	var paths []string
	for _, path := range append([]string{unified}, v1...) {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}
