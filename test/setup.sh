#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: Debian packages, and
# DuckDB from npm, which reads our segments to prove that others can.
set -euo pipefail
cd "$(dirname "$0")/.."
duckdb=1.5.6-r.1
packages=(
	clang-19 llvm-19 libbpf-dev             # regenerate BPF objects
	qemu-system-x86 busybox-static xz-utils # kernels in a virtual machine
	debian-archive-keyring                  # and where they come from
	nginx-light redis-server curl iperf3    # real peers
	python3 iproute2 libcap2-bin            # namespaces, capabilities
	iptables                                # a rule that drops
	podman runc                             # real containers
	chromium nodejs npm                     # the web page
)
missing=()
for p in "${packages[@]}"; do
	case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" in
	*"ok installed") ;;
	*)
		# Any nginx and any node will do, wherever they come from.
		case "$p" in
		nginx-light) command -v nginx >/dev/null && continue ;;
		nodejs) command -v node >/dev/null && continue ;;
		npm) command -v npm >/dev/null && continue ;;
		esac
		missing+=("$p")
		;;
	esac
done
if [ ${#missing[@]} -gt 0 ]; then
	echo "setup: installing ${missing[*]}"
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -q >/dev/null
	DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
fi
if [ ! -d .cache/duckdb/node_modules/@duckdb/node-api ]; then
	echo "setup: installing DuckDB $duckdb into .cache"
	mkdir -p .cache/duckdb
	npm install --prefix .cache/duckdb --no-audit --no-fund --silent "@duckdb/node-api@$duckdb"
fi
echo "setup: everything is there"
