// What the mock's doctor and fields say: the shape of a locked-down 6.18.

const gone = { fentry: 'attach: operation not permitted (lockdown: integrity)', kprobe: 'open tracefs: kprobes are not compiled in', lsm: 'attach: operation not permitted' };
const probe = (name, since, loss, reason) => ({ name, since, ok: !reason, ...(reason ? { reason: `${name} (since Linux ${since}): ${reason}` } : {}), loss });
const hook = (what, without, ...tiers) => ({ what, without, tier: tiers.find((t) => t.taken)?.name ?? '', tiers });
const tier = (name, reason) => (reason ? { name, taken: false, reason } : { name, taken: true });

export const doctor = {
  ok: true, kernel: '6.18.5-cloud-amd64', arch: 'amd64', lockdown: 'integrity',
  user: { uid: 0, capabilities: ['CAP_BPF', 'CAP_PERFMON', 'CAP_NET_ADMIN', 'CAP_SYS_PTRACE', 'CAP_DAC_READ_SEARCH'], missing: ['CAP_SYS_RESOURCE'] },
  probes: [
    probe('kernel BTF', '5.4', 'nothing can be loaded'), probe('ring buffer', '5.8', 'nothing can be loaded'),
    probe('tp_btf', '5.5', 'processes and TCP fall back to slower hooks'), probe('iterators', '5.8', 'processes and sockets that were there before the start'),
    probe('socket storage in tracing', '5.11', 'connection state falls back to a hash map'), probe('cgroup skb', '4.10', 'UDP and ICMP flows'),
    probe('drop reasons', '5.17', 'why the kernel dropped a packet'), probe('reset reasons', '6.10', 'why the kernel sent a RST'), probe('uprobe', '4.3', 'TLS and language runtimes'),
    probe('fentry', '5.5', 'hooks on kernel functions; refused under lockdown=integrity', gone.fentry),
    probe('kprobe', '4.1', 'hooks on kernel functions; needs CONFIG_KPROBE_EVENTS', gone.kprobe), probe('BPF LSM', '5.7', 'nothing can be prevented before its effect; needs lsm=...,bpf', gone.lsm),
  ],
  sensors: [
    { name: 'process', doc: 'Process: forks, execs and exits, and who runs already.', ok: true, hooks: [
      hook('processes that start and end', 'nothing of processes', tier('tp_btf sched_process_exec'), tier('tracepoint sched_process_exec', 'not needed: a better tier attached')),
      hook('processes that run already', 'processes from before the start', tier('iter/task'), tier('/proc', 'not needed: a better tier attached')),
    ] },
    { name: 'tcp', doc: 'Tcp: the life of each TCP connection, and what it carried.', ok: true, hooks: [
      hook('states of connections', 'nothing of TCP', tier('tp_btf inet_sock_set_state'), tier('tracepoint sock:inet_sock_set_state', 'not needed: a better tier attached')),
      hook('full listen queues', 'connections dropped because a queue was full', tier('fentry tcp_v4_syn_recv_sock', gone.fentry), tier('kprobe tcp_v4_syn_recv_sock', gone.kprobe)),
    ] },
    { name: 'udp', doc: 'Udp: who sends datagrams to whom.', ok: true, hooks: [
      hook('datagrams', 'UDP and ICMP flows', tier('cgroup_skb'), tier('kprobe udp_sendmsg', 'not needed: a better tier attached')),
      hook('full receive queues', 'datagrams the application was too slow for', tier('fentry udp_queue_rcv_one_skb', gone.fentry), tier('kprobe udp_queue_rcv_one_skb', gone.kprobe)),
    ] },
    { name: 'drop', doc: 'Drop: packets the kernel threw away, and why.', ok: true, hooks: [
      hook('dropped packets', 'why packets disappear', tier('tp_btf kfree_skb'), tier('tracepoint skb:kfree_skb', 'not needed: a better tier attached')),
    ] },
  ],
  notes: ['CAP_SYS_RESOURCE is missing: not needed since Linux 5.11.', 'securityfs is not mounted: lockdown was read from the kernel command line.'],
};

const columns = (text) => text.trim().split('\n').map((l) => {
  const [name, type, doc] = l.split('|');
  return { name, sql: name.replaceAll('.', '_'), type, doc };
});

export const fields = {
  tables: [
    { name: 'flows', kind: 'flow', columns: columns(`
time|time|start of the interval this record reports
end_time|time|end of the interval
flow.id|int|socket cookie: the same in every record of one end of a connection
network.transport|string|tcp, udp, icmp, ... (IANA)
network.type|string|ipv4 or ipv6
source.address|string|the client's address
source.port|int|the client's port
destination.address|string|the server's address
destination.port|int|the server's port
direction|string|outbound: the record is of the client's end; inbound: of the server's
verdict|string|forwarded, dropped or error
process.pid|int|process at this end
process.exec_id|string|its execution
process.executable.path|string|its executable
process.executable.name|string|last element of the path
process.command_args|strings|its arguments, secrets redacted
container.id|string|container at this end
container.name|string|its name
service.name|string|service at this end
peer.pid|int|process at the other end, if it is on this host
peer.service.name|string|service at the other end, if it is on this host
peer.container.name|string|container at the other end, if it is on this host
tcp.state|string|state at the end of the interval
tcp.connect_ns|duration|from SYN to established, at the client
tcp.rtt_min_ns|duration|smallest round-trip time the kernel saw
tcp.rtt_ns|duration|smoothed round-trip time
tcp.retransmits|int|segments sent again in the interval
tcp.window_limited_ns|duration|time in the interval the peer's full window held this end back
tcp.close_reason|string|how the connection ended; absent while open
tcp.reset_reason|string|the kernel's reason for a RST
tcp.listen_drops|int|connections a listening socket dropped because its queue was full
bytes.sent|int|payload this end sent in the interval
bytes.received|int|payload this end received
packets.sent|int|packets this end sent
packets.received|int|packets this end received
drop.reason|string|why the kernel dropped the packet
network.interface.name|string|interface of a dropped packet
drop.count|int|dropped packets this record stands for
complete|bool|false where the beginning or a part of the flow was not seen
attributes|map|everything else`) },
    { name: 'requests', kind: 'request', columns: columns(`
time|time|server: the request's first byte was readable; client: it was handed to the kernel
duration_ns|duration|until the last byte of the answer was handed to the kernel (server) or read (client)
time_to_first_byte_ns|duration|until the first byte of the answer
queue_ns|duration|server: how long the request lay in the socket before the process read it
role|string|server or client: the end this record was seen at
protocol|string|http, grpc, websocket, dns, postgresql, mysql, redis, kafka, mongodb, ...
network.protocol.version|string|version of the protocol: 1.1, 2
network.transport|string|tcp, udp or unix
network.type|string|ipv4 or ipv6
source.address|string|the client's address
source.port|int|the client's port
destination.address|string|the server's address
destination.port|int|the server's port
flow.id|int|socket cookie: the flow that carried it
process.pid|int|process at this end
thread.id|int|thread that handled it
go.goroutine.id|int|goroutine that handled it
process.exec_id|string|its execution
process.executable.path|string|its executable
process.executable.name|string|last element of the path
container.id|string|container at this end
container.name|string|its name
service.name|string|service at this end
peer.pid|int|process at the other end, if it is on this host
peer.service.name|string|service at the other end, if it is on this host
peer.container.name|string|container at the other end, if it is on this host
trace.trace_id|string|trace it belongs to
trace.span_id|string|its own span
trace.parent_span_id|string|span that caused it
trace.inferred|bool|the parent was concluded from what a thread did, not told by a header or a connection
http.request.method|string|method
http.route|string|path with its variable parts folded
http.response.status_code|int|status code
url.path|string|path as it was asked for
url.query|string|query, secret values redacted
rpc.system.name|string|grpc, ...
rpc.method|string|package.Service/Method
rpc.response.status_code|string|OK, NOT_FOUND, ...
db.system.name|string|postgresql, mysql, redis, mongodb, ...
db.operation.name|string|SELECT, GET, find, ...
db.collection.name|string|table or collection
db.namespace|string|database
db.query.summary|string|operations and tables, in the order they appear
db.query.text|string|query with its literals masked
db.response.status_code|string|the database's own code of an error
messaging.system|string|kafka, ...
messaging.operation.name|string|produce, fetch, ...
messaging.destination.name|string|topic or queue
dns.question.name|string|name that was asked for
dns.question.type|string|A, AAAA, SRV, ...
dns.response.code|string|NOERROR, NXDOMAIN, ...
error.type|string|why it failed: a status code, a database's code, timeout, ...; absent if it went well
size.request|int|bytes of the request, head and body
size.response|int|bytes of the answer, head and body
tls|bool|it travelled encrypted
complete|bool|seen from its first to its last byte
attributes|map|everything else`) },
    { name: 'processes', kind: 'process', columns: columns(`
time|time|when it happened
action|string|fork, exec, exit, or running
process.pid|int|process id
process.parent_pid|int|parent's process id
process.exec_id|string|stable id of this execution
process.parent.exec_id|string|the parent's execution
process.start_ns|int|creation, nanoseconds since boot
process.executable.path|string|executable
process.executable.name|string|last element of the path
process.command_args|strings|arguments, secrets redacted
process.args_truncated|bool|the arguments were longer than the bound
process.working_directory|string|working directory
process.user.id|int|effective user id
process.group.id|int|effective group id
process.capabilities|string|effective capabilities, hexadecimal
process.linux.cgroup|string|cgroup path
process.linux.cgroup_id|int|cgroup v2 id
process.namespace.net|int|inode of the namespace
process.namespace.pid|int|inode of the namespace
process.namespace.mnt|int|inode of the namespace
process.exit.code|int|exit code
process.exit.signal|int|signal that ended it, 0 if none
container.id|string|container
container.name|string|its name
container.runtime|string|docker, containerd, cri-o or podman
service.name|string|service
complete|bool|false where a part of the story was lost`) },
  ],
  aliases: {
    route: ['http.route', 'rpc.method'], path: ['url.path'], method: ['http.request.method'], status: ['http.response.status_code', 'rpc.response.status_code', 'db.response.status_code', 'dns.response.code'],
    operation: ['db.operation.name', 'rpc.method', 'messaging.operation.name', 'dns.question.type'], target: ['db.collection.name', 'messaging.destination.name', 'dns.question.name'],
    error: ['error.type'], trace: ['trace.trace_id'], span: ['trace.span_id'], slower: ['duration_ns'], faster: ['duration_ns'],
    service: ['service.name', 'peer.service.name'], pid: ['process.pid', 'peer.pid'], command: ['process.executable.name'], container: ['container.name'], address: ['source.address', 'destination.address'], port: ['source.port', 'destination.port'],
    transport: ['network.transport'], verdict: ['verdict'], peer: ['peer.service.name'], reason: ['tcp.close_reason'],
  },
};
