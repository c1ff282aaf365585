package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

const (
	idA = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	uid = "0b1d2c3e-1111-4222-8333-944455556666"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	docker, storage, state := dir+"/docker", dir+"/storage", dir+"/run/tasks"
	conmon := "conmon\x00--api-version\x001\x00-c\x00" + idA + "\x00-u\x00" + idA + "\x00-b\x00" + dir + "/other/overlay-containers/" + idA +
		"/userdata\x00-n\x00NAME\x00--exit-command-arg\x00--root\x00--exit-command-arg\x00-n"
	shim := "containerd-shim-runc-v2\x00-namespace\x00NS\x00-id\x00ID\x00-address\x00/run/containerd/containerd.sock"

	for name, c := range map[string]struct {
		place   Place
		prepare func(t *testing.T, n *Names)
		want    event.Container
		found   bool
	}{
		"docker": {Place{ID: idA, Runtime: "docker"}, func(t *testing.T, n *Names) {
			write(t, docker+"/containers/"+idA+"/config.v2.json", `{"ID":"`+idA+`","Name":"/web-1","Config":{"Hostname":"0123","Labels":{}}}`)
		}, event.Container{ID: idA, Name: "web-1", Runtime: "docker"}, true},
		"docker of the kubelet": {Place{ID: idA}, func(t *testing.T, n *Names) {
			write(t, docker+"/containers/"+idA+"/config.v2.json",
				`{"Name":"/k8s_nginx_web-1_default_`+uid+`_0","Config":{"Labels":{"io.kubernetes.container.name":"nginx","io.kubernetes.pod.uid":"`+uid+`"}}}`)
		}, event.Container{ID: idA, Name: "nginx", Runtime: "docker", PodUID: uid}, true},
		"docker with a root of its own": {Place{ID: idA, Runtime: "docker"}, func(t *testing.T, n *Names) {
			n.Observe("dockerd", "dockerd\x00--data-root="+dir+"/elsewhere", "/")
			write(t, dir+"/elsewhere/containers/"+idA+"/config.v2.json", `{"Name":"/far"}`)
		}, event.Container{ID: idA, Name: "far", Runtime: "docker"}, true},
		"podman by its monitor": {Place{ID: idA, Runtime: "podman"}, func(t *testing.T, n *Names) {
			n.Observe("conmon", strings.Replace(conmon, "NAME", "eager_fox", 1), "/")
		}, event.Container{ID: idA, Name: "eager_fox", Runtime: "podman"}, true},
		"podman by its storage": {Place{ID: idA, Runtime: "podman"}, func(t *testing.T, n *Names) {
			write(t, storage+"/overlay-containers/containers.json", `[{"id":"x","names":["y"]},{"id":"`+idA+`","names":["web"]}]`)
		}, event.Container{ID: idA, Name: "web", Runtime: "podman"}, true},
		"podman, volatile, in a storage that its monitor tells": {Place{ID: idA, Runtime: "podman"}, func(t *testing.T, n *Names) {
			n.Observe("conmon", strings.Replace(conmon, "NAME", "", 1), "/")
			write(t, dir+"/other/overlay-containers/volatile-containers.json", `[{"id":"`+idA+`","names":["quick"]}]`)
		}, event.Container{ID: idA, Name: "quick", Runtime: "podman"}, true},
		"cri-o by its monitor": {Place{ID: idA, Runtime: "cri-o", PodUID: uid}, func(t *testing.T, n *Names) {
			n.Observe("conmon", strings.Replace(conmon, "NAME", "k8s_nginx_web-1_default_"+uid+"_0", 1), "/")
		}, event.Container{ID: idA, Name: "nginx", Runtime: "cri-o", PodUID: uid}, true},
		"containerd of the kubelet": {Place{ID: idA, PodUID: uid}, func(t *testing.T, n *Names) {
			write(t, state+"/k8s.io/"+idA+"/config.json", `{"annotations":{"io.kubernetes.cri.container-name":"nginx","io.kubernetes.cri.sandbox-uid":"`+uid+`"}}`)
		}, event.Container{ID: idA, Name: "nginx", Runtime: "containerd", PodUID: uid}, true},
		"nerdctl": {Place{ID: idA, Runtime: "containerd"}, func(t *testing.T, n *Names) {
			write(t, state+"/default/"+idA+"/config.json", `{"annotations":{"nerdctl/name":"web"}}`)
		}, event.Container{ID: idA, Name: "web", Runtime: "containerd"}, true},
		"ctr": {Place{ID: "web1", Runtime: "containerd"}, func(t *testing.T, n *Names) {
			n.Observe("containerd-shim-runc-v2", strings.NewReplacer("NS", "default", "ID", "web1").Replace(shim), "/run/x")
		}, event.Container{ID: "web1", Name: "web1", Runtime: "containerd"}, true},
		"containerd with a state of its own": {Place{ID: idA, Runtime: "containerd"}, func(t *testing.T, n *Names) {
			n.Observe("containerd-shim-runc-v2", strings.NewReplacer("NS", "k8s.io", "ID", "sandbox").Replace(shim), dir+"/rke2/tasks/k8s.io/sandbox")
			write(t, dir+"/rke2/tasks/k8s.io/"+idA+"/config.json", `{"annotations":{"io.kubernetes.cri.container-name":"dns"}}`)
		}, event.Container{ID: idA, Name: "dns", Runtime: "containerd"}, true},
		"lxc":     {Place{ID: "web", Runtime: "lxc"}, func(*testing.T, *Names) {}, event.Container{ID: "web", Name: "web", Runtime: "lxc"}, true},
		"nothing": {Place{ID: idA, Runtime: "docker"}, func(*testing.T, *Names) {}, event.Container{ID: idA, Runtime: "docker"}, false},
		"broken": {Place{ID: idA, Runtime: "docker"}, func(t *testing.T, n *Names) {
			write(t, docker+"/containers/"+idA+"/config.v2.json", `{"Name":`)
			write(t, storage+"/overlay-containers/containers.json", `{}`)
		}, event.Container{ID: idA, Runtime: "docker"}, false},
		"an id that is a path": {Place{ID: "../" + idA, Runtime: "docker"}, func(t *testing.T, n *Names) {
			write(t, docker+"/"+idA+"/config.v2.json", `{"Name":"/trap"}`)
		}, event.Container{ID: "../" + idA, Runtime: "docker"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			n := NewNames([]string{docker}, []string{storage})
			n.state = []string{state}
			c.prepare(t, n)
			if got, found := n.Find(c.place); got != c.want || found != c.found {
				t.Errorf("%+v, %v; want %+v, %v", got, found, c.want, c.found)
			}
		})
	}
}

// The path of a container that containerd was given by name has no form: the
// shim's arguments tell it from any other group.
func TestPlaceByShim(t *testing.T) {
	n := NewNames([]string{}, []string{})
	const path = "/default/web1/init.scope"
	if p := n.Place(path, Parse(path)); p.ID != "" {
		t.Errorf("without a shim: %+v", p)
	}
	n.Observe("containerd-shim-runc-v2", "shim\x00-namespace\x00default\x00-id\x00web1", "/")
	if p := n.Place(path, Parse(path)); p.ID != "web1" || p.Runtime != "containerd" {
		t.Errorf("%+v", p)
	}
	for _, other := range []string{"/other/web1", "/default/web2", "/web1", "/"} {
		if p := n.Place(other, Parse(other)); p.ID != "" {
			t.Errorf("%s: %+v", other, p)
		}
	}
}

func TestMonitorsAreBounded(t *testing.T) {
	n := NewNames([]string{}, []string{})
	for i := range 3 * maxMonitors {
		id := strings.Repeat("x", 1+i%7) + string(rune('a'+i%26)) + strings.Repeat("y", i/182)
		n.Observe("conmon", "conmon\x00-c\x00"+id+"\x00-n\x00x\x00-b\x00/"+id+"/overlay-containers/a/userdata", "/")
	}
	if len(n.monitors) > maxMonitors || len(n.storage) > maxRoots {
		t.Errorf("%d monitors, %d roots", len(n.monitors), len(n.storage))
	}
}

func TestMounts(t *testing.T) {
	const mountinfo = `24 31 0:22 / /proc rw,relatime - proc proc rw
33 25 0:28 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw
34 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
35 25 0:28 /system.slice /mnt/part rw - cgroup2 cgroup2 rw
36 25 0:28 / /mnt/with\040blank rw - cgroup2 none rw
broken - cgroup2
`
	got := strings.Join(Mounts([]byte(mountinfo)), ",")
	if want := "/sys/fs/cgroup/unified,/mnt/with blank"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHybrid(t *testing.T) {
	for text, want := range map[string]bool{"0::/x\n": false, "1:name=systemd:/\n0::/\n": true, "": false} {
		if got := Hybrid([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// A tree of plain folders has inodes too, but no handles: the walk finds them.
func TestCgroupsByWalk(t *testing.T) {
	root := t.TempDir()
	group := filepath.Join(root, "a.slice", "b.service")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	c := NewCgroups([]string{root, "/does/not/exist"})
	defer c.Close()
	c.walk = true
	if got := c.Path(inode(t, group)); got != "/a.slice/b.service" {
		t.Errorf("%q", got)
	}
	if got := c.Path(inode(t, root)); got != "/" {
		t.Errorf("%q", got)
	}
	if got := c.Path(1 << 60); got != "" {
		t.Errorf("%q", got)
	}
}
