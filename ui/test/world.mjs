// A small invented host for the mock server: services that talk, processes
// that start and end, and now and then something that fails.

/** Random numbers from a seed, so that a failing test can be run again. */
export function random(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const bootAgo = 9 * 86400e3;

export const iso = (ms) => {
  const whole = Math.floor(ms);
  const ns = String(Math.round((ms - whole) * 1e6)).padStart(6, '0');
  return new Date(whole).toISOString().replace('Z', `${ns}Z`).replace(/0+Z$/, 'Z').replace('.Z', 'Z');
};

const base = [
  // name, command, container, address, port, uid
  ['nginx', 'nginx', '', '10.0.0.2', 443, 33],
  ['storefront', 'node', 'storefront-7c9', '10.1.0.11', 3000, 1000],
  ['checkout', 'python3', 'checkout-5f1', '10.1.0.12', 8080, 1000],
  ['catalog', 'catalog', 'catalog-2b8', '10.1.0.13', 8080, 1000],
  ['auth', 'auth', 'auth-90e', '10.1.0.14', 9000, 1000],
  ['payments', 'java', 'payments-c44', '10.1.0.15', 8443, 1000],
  ['postgresql', 'postgres', '', '10.0.0.5', 5432, 114],
  ['redis-server', 'redis-server', '', '10.0.0.6', 6379, 115],
  ['kafka', 'java', 'kafka-0', '10.1.0.20', 9092, 1001],
  ['search', 'java', 'search-1aa', '10.1.0.16', 9200, 1000],
  ['systemd-resolved', 'systemd-resolved', '', '127.0.0.53', 53, 101],
  ['prometheus', 'prometheus', '', '10.0.0.9', 9090, 120],
  ['batch', 'python3', 'batch-nightly', '10.1.0.30', 0, 1000],
];
const usualLinks = [
  // client, server, weight, bytes up, bytes down, share that fails
  ['@in', 'nginx', 30, 900, 24000, 0.01], ['nginx', 'storefront', 24, 700, 18000, 0.005],
  ['storefront', 'catalog', 14, 400, 9000, 0], ['storefront', 'checkout', 8, 1200, 3000, 0.03],
  ['storefront', 'auth', 12, 300, 600, 0], ['storefront', 'search', 5, 350, 14000, 0.02],
  ['checkout', 'payments', 5, 2200, 1800, 0.22], ['checkout', 'postgresql', 9, 900, 2600, 0],
  ['checkout', 'kafka', 4, 5200, 200, 0], ['catalog', 'postgresql', 10, 500, 42000, 0],
  ['catalog', 'redis-server', 16, 120, 5200, 0], ['auth', 'redis-server', 11, 90, 210, 0],
  ['auth', 'postgresql', 3, 300, 700, 0], ['payments', '@out', 4, 3100, 2400, 0.06],
  ['batch', 'kafka', 3, 300, 260000, 0], ['batch', 'postgresql', 3, 380000, 9000, 0.01],
  ['search', 'kafka', 2, 200, 90000, 0], ['prometheus', 'nginx', 1, 220, 6400, 0],
  ['prometheus', 'postgresql', 1, 220, 9400, 0.4], ['storefront', 'systemd-resolved', 6, 60, 120, 0],
  ['payments', 'systemd-resolved', 2, 60, 140, 0],
];
const peersIn = ['203.0.113.7', '203.0.113.44', '198.51.100.23', '2001:db8::51', '198.51.100.90', '203.0.113.180', '192.0.2.15', '192.0.2.77'];
const peersOut = ['192.0.2.200', '192.0.2.201', '2001:db8:44::8'];

export function world({ seed = 7, nodes = 0, minutes = 20, perSecond = 1.6 } = {}) {
  const links = [...usualLinks];
  const rnd = random(seed);
  const pick = (list) => list[Math.floor(rnd() * list.length)];
  const now = Date.now();
  const boot = now - bootAgo;
  let pids = 1200;
  let cookies = 41_000;
  const services = new Map();
  const processes = []; // every record, oldest first
  const bootNS = (ms) => Math.round((ms - boot) * 1e6);

  const record = (p, action, at, more = {}) => {
    const row = {
      kind: 'process', time: iso(at), action,
      process: {
        pid: p.pid, parent_pid: p.parent?.pid ?? 0, exec_id: p.id, start_ns: bootNS(p.start),
        executable: { path: p.path, name: p.path.split('/').pop() }, command_args: p.args, working_directory: p.cwd ?? '/',
        user: { id: p.uid }, group: { id: p.uid }, capabilities: p.uid ? '0' : '1ffffffffff',
        linux: { cgroup: p.container ? `/system.slice/docker-${p.containerID}.scope` : `/system.slice/${p.service || 'init'}.service`, cgroup_id: 4000 + p.pid },
        namespace: { net: p.container ? 4026532000 + p.pid : 4026531840, pid: 4026531836, mnt: 4026531841 }, ...more,
      },
      complete: true,
    };
    if (p.parent) row.process.parent = { exec_id: p.parent.id };
    if (p.service) row.service = { name: p.service };
    if (p.container) row.container = { id: p.containerID, name: p.container, runtime: 'docker' };
    processes.push(row);
    return row;
  };
  const spawn = (parent, path, args, o = {}) => {
    const p = { pid: o.pid ?? (pids += 1 + Math.floor(rnd() * 9)), parent, path, args, start: o.start, uid: o.uid ?? 0, service: o.service ?? '', container: o.container ?? '', containerID: o.containerID, cwd: o.cwd };
    p.id = `b3f1a2c4.${p.pid}.${bootNS(p.start).toString(36)}.1`;
    return p;
  };
  const early = boot + 3000;
  const running = [];
  const boots = (p) => (running.push(p), p);
  const init = boots(spawn(null, '/usr/lib/systemd/systemd', ['/sbin/init'], { pid: 1, start: boot, service: 'init' }));
  const dockerd = boots(spawn(init, '/usr/bin/containerd', ['containerd'], { start: early, service: 'containerd' }));
  const sshd = boots(spawn(init, '/usr/sbin/sshd', ['sshd: /usr/sbin/sshd -D'], { start: early + 400, service: 'ssh' }));
  const cron = boots(spawn(init, '/usr/sbin/cron', ['/usr/sbin/cron', '-f'], { start: early + 500, service: 'cron' }));
  const login = boots(spawn(sshd, '/usr/sbin/sshd', ['sshd: ana [priv]'], { start: now - 5400e3, service: 'ssh' }));
  const shell = boots(spawn(login, '/usr/bin/bash', ['-bash'], { start: now - 5399e3, uid: 1001, service: 'ssh', cwd: '/home/ana' }));
  for (const [name, command, container, address, port, uid] of base) {
    const containerID = container && [...Array(64)].map(() => Math.floor(rnd() * 16).toString(16)).join('');
    let parent = init;
    if (container) parent = boots(spawn(dockerd, '/usr/bin/containerd-shim-runc-v2', ['containerd-shim-runc-v2', '-namespace', 'moby', '-id', containerID], { start: early + 4000 + pids, service: 'containerd' }));
    const dir = container ? '/app/' : '/usr/sbin/';
    const main = boots(spawn(parent, dir + command, [command, ...(port ? ['--port', String(port)] : ['--nightly', '--token=[redacted]'])], { start: early + 5000 + pids, uid, service: name, container, containerID, cwd: container ? '/app' : '/' }));
    const workers = ['nginx', 'postgres'].includes(command) ? 4 : 0;
    for (let i = 0; i < workers; i++) boots(spawn(main, dir + command, [`${command}: worker process`], { start: main.start + 20 + i, uid, service: name }));
    services.set(name, { name, command, container, containerID, address, port, uid, main });
  }
  for (let i = 0; services.size < nodes; i++) {
    const name = `${pick(['order', 'mail', 'image', 'stock', 'price', 'user', 'tax', 'geo', 'feed', 'audit'])}-${pick(['api', 'worker', 'cache', 'store', 'gateway'])}-${i}`;
    const s = { name, command: 'app', container: `${name}-0`, containerID: 'f'.repeat(64), address: `10.2.${i >> 8}.${i & 255}`, port: 8000 + (i % 90), uid: 1000, main: spawn(dockerd, '/app/app', ['app', name], { start: early + 9000 + i, uid: 1000, service: name, container: `${name}-0`, containerID: 'f'.repeat(64) }) };
    services.set(name, s);
    boots(s.main);
    const names = [...services.keys()];
    const gateways = names.slice(13, 25);
    links.push([name, pick(['postgresql', 'redis-server', 'kafka', 'auth', 'payments', 'search', 'postgresql']), 0.6, 400, 3000, rnd() < 0.05 ? 0.3 : 0]);
    if (i >= 12) links.push([pick(gateways), name, 0.5, 400, 3000, 0]);
    else links.push(['nginx', name, 1, 400, 3000, 0]);
  }
  const from = now - minutes * 60e3;
  for (const p of running) record(p, 'running', from);

  const flows = [];
  const total = links.reduce((n, l) => n + l[2], 0);
  const choose = () => {
    let x = rnd() * total;
    for (const l of links) if ((x -= l[2]) <= 0) return l;
    return links[0];
  };
  const endOf = (s, peer) => ({
    process: { pid: s.main.pid, exec_id: s.main.id, executable: { path: s.main.path, name: s.command }, command_args: s.main.args },
    ...(s.container ? { container: { id: s.containerID, name: s.container } } : {}),
    service: { name: s.name },
    ...(peer ? { peer: { pid: peer.main.pid, service: { name: peer.name }, ...(peer.container ? { container: { name: peer.container } } : {}) } } : {}),
  });

  /** One connection that ends at the given time: a record for each end on this host. */
  function connection(at) {
    const [from, to, , up, down, failing] = choose();
    const c = services.get(from);
    const s = services.get(to);
    const udp = to === 'systemd-resolved';
    const failed = rnd() < failing;
    const reason = failed ? pick(s?.port === 8443 ? ['refused', 'timeout', 'reset_received'] : ['refused', 'reset_received', 'timeout', 'unreachable']) : '';
    const early = reason === 'refused' || reason === 'timeout' || reason === 'unreachable';
    const took = reason === 'timeout' ? 3000 + rnd() * 4000 : early ? rnd() : 2 + rnd() ** 3 * 4000;
    const open = !failed && !udp && rnd() < 0.12;
    const size = (n) => Math.round(n * (0.3 + rnd() * rnd() * 4));
    const [sent, received] = early ? [0, 0] : [size(up), size(down)];
    const rtt = s && c ? 40e3 + rnd() * 300e3 : 8e6 + rnd() * 60e6;
    const retransmits = rnd() < 0.05 || reason === 'timeout' ? 1 + Math.floor(rnd() * 5) : 0;
    const six = (a) => a.includes(':');
    const peerAddress = c ? c.address : pick(peersIn);
    const destination = s ? s.address : pick(peersOut);
    const tuple = {
      network: { transport: udp ? 'udp' : 'tcp', type: six(destination) || six(peerAddress) ? 'ipv6' : 'ipv4' },
      source: { address: peerAddress, port: 32768 + Math.floor(rnd() * 28000) },
      destination: { address: destination, port: s ? s.port : 443 },
    };
    const half = (direction, us, them, sentBytes, receivedBytes, close) => ({
      kind: 'flow', time: iso(at - took), end_time: iso(at), flow: { id: ++cookies }, ...tuple, direction,
      verdict: failed ? 'error' : 'forwarded', ...endOf(us, them),
      ...(udp ? {} : {
        tcp: {
          state: open ? 'established' : 'close', ...(direction === 'outbound' && !early ? { connect_ns: Math.round(rtt * 1.2) } : {}),
          ...(early ? {} : { rtt_min_ns: Math.round(rtt * 0.7), rtt_ns: Math.round(rtt) }), retransmits, ...(close ? { close_reason: close } : {}),
        },
      }),
      bytes: { sent: sentBytes, received: receivedBytes },
      packets: { sent: 2 + Math.ceil(sentBytes / 1400), received: early ? 0 : 2 + Math.ceil(receivedBytes / 1400) },
      complete: rnd() > 0.01,
    });
    const mirrored = { reset_received: 'reset_sent', fin_sent: 'fin_received', fin_received: 'fin_sent' };
    const close = open || udp ? '' : reason || pick(['fin_sent', 'fin_sent', 'fin_received']);
    const rows = [];
    if (c) rows.push(half('outbound', c, s, sent, received, close));
    if (s && !early) rows.push(half('inbound', s, c, received, sent, mirrored[close] ?? ''));
    return rows;
  }
  function drop(at) {
    const s = services.get(pick(['nginx', 'postgresql', 'storefront']));
    return [{
      kind: 'flow', time: iso(at), end_time: iso(at), network: { transport: 'tcp', type: 'ipv4', interface: { name: 'eth0' } },
      source: { address: pick(['203.0.113.66', '198.51.100.3']), port: 40000 + Math.floor(rnd() * 9000) }, destination: { address: s.address, port: pick([22, 23, 8081]) },
      direction: 'inbound', verdict: 'dropped', drop: { reason: pick(['no_socket', 'netfilter_drop', 'tcp_csum']), count: 1 + Math.floor(rnd() * 3) }, complete: true,
    }];
  }
  const moreFlows = (at) => (rnd() < 0.02 ? drop(at) : connection(at));
  const n = Math.round(minutes * 60 * perSecond);
  for (let i = 0; i < n; i++) {
    const at = from + ((i + rnd()) / n) * (now - from);
    flows.push(...moreFlows(at));
  }

  // Someone at the shell, and cron: short lives.
  const lives = [];
  function brief(at) {
    const asUser = rnd() < 0.6;
    const parent = asUser ? shell : cron;
    const [path, args, took, code] = pick([
      ['/usr/bin/curl', ['curl', '-s', 'https://shop.example/health'], 120, 0], ['/usr/bin/git', ['git', 'pull', '--ff-only'], 2400, 0],
      ['/usr/bin/psql', ['psql', '-c', 'select 1', 'postgresql://[redacted]@10.0.0.5/shop'], 300, 0], ['/usr/bin/grep', ['grep', '-r', 'timeout', '/etc'], 80, 1],
      ['/usr/local/bin/backup', ['backup', '--to', 's3://nightly'], 30000, 0], ['/usr/bin/python3', ['python3', 'report.py', '--day', 'today'], 9000, 137],
    ]);
    const p = spawn(parent, path, args, { start: at, uid: asUser ? 1001 : 0, service: asUser ? 'ssh' : 'cron', cwd: asUser ? '/home/ana' : '/' });
    return { p, at, end: at + took * (0.5 + rnd()), code };
  }
  const live = (l) => record(l.p, 'exec', l.at);
  const die = (l) => record(l.p, 'exit', l.end, { exit: { code: l.code === 137 ? 0 : l.code, signal: l.code === 137 ? 9 : 0 } });
  for (let at = from; at < now; at += 4000 + rnd() * 9000) lives.push(brief(at));
  for (const l of lives) {
    live(l);
    if (l.end < now) die(l);
  }
  processes.sort((a, b) => (a.time < b.time ? -1 : 1));

  return { boot, flows, processes, moreFlows, services, links, brief, live, die, early: lives.filter((l) => l.end >= now) };
}
