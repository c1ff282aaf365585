#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: Debian packages, and from
# npm what Debian has not or has too old. Changes nothing where all is there.
set -euo pipefail
cd "$(dirname "$0")/.."
duckdb=1.5.6-r.1
node=24.21.0
log=.cache/setup.log
packages=(
	git ca-certificates                     # generated files are compared; npm and Go fetch
	clang-19 llvm-19 libbpf-dev             # regenerate BPF objects
	qemu-system-x86 busybox-static xz-utils # kernels in a virtual machine
	debian-archive-keyring                  # and where they come from
	nginx-light curl iperf3 python3         # real peers: HTTP, bulk, plain sockets
	wrk nghttp2-client                      # HTTP under load, HTTP/2 (h2load)
	redis-server postgresql                 # databases that speak their own protocols
	python3-psycopg2 python3-redis          # and real clients of theirs
	mariadb-server-core mariadb-client-core # the same, without its service
	dnsmasq-base                            # names to look up, without its service
	openssl gnutls-bin default-jdk-headless # TLS by three stacks; nodejs has a fourth
	iproute2 libcap2-bin                    # namespaces, capabilities
	iptables                                # a rule that drops
	podman runc                             # real containers
	chromium nodejs npm                     # the web page
	bpftrace                                # make bench compares with it
)

fail() {
	echo "setup: $*" >&2
	exit 1
}

# lacking prints the packages that are not installed. Any nginx and any npm
# will do, wherever they come from.
lacking() {
	local p
	for p in "${packages[@]}"; do
		case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" in
		*"ok installed") continue ;;
		esac
		case "$p" in
		nginx-light) command -v nginx >/dev/null && continue ;;
		nodejs) command -v node >/dev/null && continue ;;
		npm) command -v npm >/dev/null && continue ;;
		esac
		echo "$p"
	done
}

# as_root runs a command as root; the caller has made sure that it can.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# quietly runs a command whose words go to the log, and shows them if it fails.
quietly() {
	"$@" </dev/null >>"$log" 2>&1 && return
	tail -n 20 "$log" >&2
	[ "$1" != as_root ] || shift
	fail "failed: $* (all of it is in $log)"
}

# at_boot prints the units that start by themselves.
at_boot() {
	[ -d /run/systemd/system ] || return 0
	systemctl list-unit-files --state=enabled --no-legend --plain | awk '{ print $1 }' | sort
}

# install_packages installs them, and none of their servers starts: not now,
# and not at the next boot. Tests start servers themselves.
install_packages() {
	local policy=/usr/sbin/policy-rc.d before units unknown
	quietly as_root apt-get update -q
	unknown=$(LC_ALL=C apt-cache policy "$@" | awk '
		BEGIN { for (i = 1; i < ARGC; i++) { lacks[ARGV[i]] = 1 } ARGC = 1 }
		/^[^ ]/ { p = $1; sub(/:.*/, "", p) }
		/Candidate: [^(]/ { delete lacks[p] }
		END { for (p in lacks) printf " %s", p }' "$@")
	[ -z "$unknown" ] || fail "apt's sources have no$unknown; those of Debian 12 and later do (what apt said is in $log)"
	before=$(at_boot)
	if [ ! -e "$policy" ]; then
		trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
		trap 'exit 1' INT TERM
		printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin "$policy"
	fi
	quietly as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
	mapfile -t units < <(comm -13 <(echo "$before") <(at_boot))
	[ ${#units[@]} -gt 0 ] || return 0
	quietly as_root systemctl disable "${units[@]}"
	echo "setup: these came with the packages and will not start by themselves: ${units[*]}"
}

# npm_package FOLDER NAME VERSION REASON installs one package below .cache.
npm_package() {
	local dir=.cache/$1 name=$2 version=$3 reason=$4
	grep -qs "\"version\": \"$version\"" "$dir/node_modules/$name/package.json" && return
	echo "setup: installing $name $version from npm into $dir$reason"
	mkdir -p "$dir"
	quietly npm install --prefix "$dir" --no-audit --no-fund --loglevel=error "$name@$version"
}

# go_program FOLDER PACKAGE TAGS builds a program that tests talk to, from a Go
# module of its own, into .cache.
go_program() {
	local dir=test/$1 out=.cache/$1
	[ ! -e "$out" ] || [ -n "$(find "$dir" -newer "$out" -type f -print -quit)" ] || return 0
	echo "setup: building $1 for the tests into $out (a minute or two)"
	quietly env CGO_ENABLED=0 go -C "$dir" build -buildvcs=false -trimpath -ldflags "-s -w" -tags "$3" -o "$PWD/$out" "$2"
	touch "$out" # go leaves the time of a file that did not change
}

# The browser's driver wants Node 20 and our way to run its tests 20.14.
node_is_new() {
	node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a == 20 && b >= 14) ? 0 : 1)'
}

mkdir -p .cache
: >"$log"
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	fail "the tests install their packages by apt, which is not here: run them on Debian 12 or later (make run needs none of this)"
fi
mapfile -t missing < <(lacking)
if [ ${#missing[@]} -gt 0 ]; then
	if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
		fail "not root, and no sudo. As root, run: apt-get install --no-install-recommends ${missing[*]}"
	fi
	echo "setup: installing ${missing[*]} (some minutes; log in $log)"
	install_packages "${missing[@]}"
fi
if ! node_is_new; then
	case "$(uname -m)" in
	x86_64) arch=x64 ;;
	aarch64) arch=arm64 ;;
	*) fail "node $(node --version) is too old for the browser tests: install 20.14 or later" ;;
	esac
	npm_package node "node-linux-$arch" "$node" "; $(node --version) is too old for the browser tests"
	ln -sfn "node_modules/node-linux-$arch/bin" .cache/node/bin # where test/browser.sh looks
fi
npm_package duckdb @duckdb/node-api "$duckdb" "; it reads our segments, to prove that others can"
go_program collector . ""
go_program prometheus github.com/prometheus/prometheus/cmd/prometheus remove_all_sd # finds no targets in clouds
echo "setup: everything is there"
