#!/usr/bin/env bash
# Installs the Debian packages that the tests need and this machine lacks.
set -euo pipefail
packages=(
	clang-19 llvm-19 libbpf-dev             # regenerate BPF objects
	qemu-system-x86 busybox-static xz-utils # kernels in a virtual machine
	debian-archive-keyring                  # and where they come from
	nginx-light redis-server curl iperf3    # real peers
	python3 iproute2 libcap2-bin            # namespaces, capabilities
	podman runc                             # real containers
	chromium                                # the web page
)
missing=()
for p in "${packages[@]}"; do
	case "$(dpkg-query -W -f '${Status}' "$p" 2>/dev/null)" in
	*"ok installed") ;;
	*)
		# nginx-light and nginx give the same server; either will do.
		if [ "$p" = nginx-light ] && command -v nginx >/dev/null; then continue; fi
		missing+=("$p")
		;;
	esac
done
if [ ${#missing[@]} -eq 0 ]; then
	echo "setup: every package is there"
	exit 0
fi
echo "setup: installing ${missing[*]}"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -q >/dev/null
# No service may start by itself: tests start their own.
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
echo "setup: done"
