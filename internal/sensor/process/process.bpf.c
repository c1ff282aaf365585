//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Processes as they are made, become another program and end.
 *
 *	sched_process_fork -> struct fork       a new thread group, not a thread
 *	sched_process_exec -> struct exec       + executable, cwd, arguments
 *	sched_process_exit -> struct end        the last thread of the group
 *	iter/task          -> struct exec       all of them, to the sequence file
 *
 * and where tracepoints are preempted, a twin behind each of the first three.
 *
 * task_struct is walked with plain loads: in these programs its pointers are
 * typed, a bad one reads as zero, and no helper is called. Pointers that the
 * kernel marks __rcu are compared with NULL because newer verifiers ask for it.
 */
#include "ghost.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	FORK = 1,
	EXEC = 2,
	EXIT = 3,
	RUNNING = 4,
};

enum {
	EXE_CUT = 1,    /* the path was longer than PATH_BYTES or PATH_STEPS */
	CWD_CUT = 2,
	ARGS_CUT = 4,   /* there were more than ARGS_LARGE bytes */
	ARGS_FAULT = 8, /* the arguments could not be read */
	KTHREAD = 16,
};

#define PF_KTHREAD 0x00200000
#define SIGNAL_GROUP_EXIT 0x00000004

/* Who a record is about. start and pid name a process for good. */
struct identity {
	__u64 start;     /* CLOCK_BOOTTIME */
	__u64 exec_id;   /* self_exec_id: execs of the process and its ancestors */
	__u64 cgroup;
	__u32 pid, ppid; /* thread groups */
	__u32 uid, gid;  /* effective */
	__u32 ns_cgroup, ns_ipc, ns_mnt, ns_net, ns_pid, ns_user, ns_uts;
	__u32 flags;
};
_Static_assert(sizeof(struct identity) == 72, "identity has no holes");

struct fork {
	struct ghost_hdr h;
	struct identity id;
};
_Static_assert(sizeof(struct fork) == 104, "fork has no holes");

struct end {
	struct ghost_hdr h;
	struct identity id;
	__u32 status; /* as wait(2) has it: code << 8 | signal */
	__u32 pad;
};
_Static_assert(sizeof(struct end) == 112, "end has no holes");

/* After it: the names of the executable's path from the leaf to the root, each
 * with its NUL; those of the working directory; the arguments as the process
 * has them. */
struct exec {
	struct ghost_hdr h;
	struct identity id;
	__u64 cap_effective;
	__u64 arg_start; /* of a running process: tells whether it has exec'd since */
	__u32 used;      /* bytes written after the struct, so far */
	__u32 exe_len;
	__u32 cwd_len;
	__u32 args_len;
	char comm[16];
};
_Static_assert(sizeof(struct exec) == 152, "exec has no holes");

#define NAME_BYTES 256   /* NAME_MAX and the NUL */
#define PATH_BYTES 1024  /* no name begins after that many bytes of a path */
#define PATH_STEPS 64    /* names and mount points of a path */
#define PATHS_BYTES (2 * (PATH_BYTES + NAME_BYTES))
#define ARGS_SMALL 512
#define ARGS_MEDIUM 2048
#define ARGS_LARGE 8192

/* The reservation has to be of a constant size: the smallest of three that
 * holds the arguments. */
#define EXEC_OF(name_, args_)                         \
	struct name_ {                                \
		union {                               \
			struct ghost_hdr h;           \
			struct exec e;                \
		};                                    \
		char data[PATHS_BYTES + (args_)];     \
	}
EXEC_OF(exec_small, ARGS_SMALL);
EXEC_OF(exec_medium, ARGS_MEDIUM);
EXEC_OF(exec_large, ARGS_LARGE);
EXEC_OF(exec_running, 0);

/* Keeps the records in the object's BTF, where bpf2go finds them. */
const struct records {
	struct fork fork;
	struct exec exec;
	struct end end;
} *const records __attribute__((unused)) = NULL;

/* Where the iterator builds a record; one slot, because one reader of one
 * sequence file runs it. Too big for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_running);
} running_scratch SEC(".maps");

/* The namespace that the process itself is in, as task_active_pid_ns() has it;
 * nsproxy->pid_ns_for_children is that of its next child. */
static __always_inline __u32 pid_ns_inum(struct task_struct *t)
{
	struct pid *pid = BPF_CORE_READ(t, thread_pid);
	__u32 level = BPF_CORE_READ(pid, level);
	struct upid *at = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
			  level * bpf_core_type_size(struct upid);

	return pid ? BPF_CORE_READ(at, ns, ns.inum) : 0;
}

static __always_inline void identify(struct identity *id, struct task_struct *t)
{
	struct task_struct *parent = t->real_parent;
	const struct cred *cred = t->real_cred;
	struct css_set *cgroups = t->cgroups;
	struct nsproxy *ns = t->nsproxy;

	id->start = t->group_leader->start_boottime;
	id->exec_id = t->self_exec_id;
	id->cgroup = cgroups ? cgroups->dfl_cgrp->kn->id : 0;
	id->pid = t->tgid;
	id->ppid = parent ? parent->tgid : 0;
	id->uid = cred ? cred->euid.val : 0;
	id->gid = cred ? cred->egid.val : 0;
	id->ns_cgroup = ns ? ns->cgroup_ns->ns.inum : 0;
	id->ns_ipc = ns ? ns->ipc_ns->ns.inum : 0;
	id->ns_mnt = ns ? ns->mnt_ns->ns.inum : 0;
	id->ns_net = ns ? ns->net_ns->ns.inum : 0;
	id->ns_uts = ns ? ns->uts_ns->ns.inum : 0;
	id->ns_user = cred ? cred->user_ns->ns.inum : 0;
	id->ns_pid = pid_ns_inum(t);
	id->flags = t->flags & PF_KTHREAD ? KTHREAD : 0;
}

/* One place in the tree of mounts and dentries. */
struct place {
	struct dentry *dentry;
	struct vfsmount *mnt;
};

static __always_inline struct place place_of(struct path *p)
{
	return (struct place){ BPF_CORE_READ(p, dentry), BPF_CORE_READ(p, mnt) };
}

/* Writes the names from p up to root and returns false if they did not fit.
 * root is the process's own, so that a path reads as the process would write
 * it, in a container or a chroot as well. `used` is kept in the record and read
 * back for every name: the verifier then sees the same state each time round
 * and looks at the body PATH_STEPS times instead of 2^PATH_STEPS times. */
static __always_inline bool write_path(struct exec *e, char *data, struct place p, struct place root, const __u32 limit)
{
	struct dentry *d = p.dentry; /* BPF_CORE_READ would relocate p.dentry too */
	struct vfsmount *mnt = p.mnt;

#pragma clang loop unroll(disable)
	for (int i = 0; i < PATH_STEPS; i++) {
		struct dentry *parent;
		struct mount *m, *above;
		__u64 at;
		long n;

		if (d == root.dentry && mnt == root.mnt)
			return true;
		if (d == BPF_CORE_READ(mnt, mnt_root)) {
			m = (void *)mnt - bpf_core_field_offset(struct mount, mnt);
			above = BPF_CORE_READ(m, mnt_parent);
			if (above == m || !above)
				return true; /* the root of a namespace */
			d = BPF_CORE_READ(m, mnt_mountpoint);
			mnt = (void *)above + bpf_core_field_offset(struct mount, mnt);
			continue;
		}
		parent = BPF_CORE_READ(d, d_parent);
		at = *(volatile __u32 *)&e->used;
		if (at > limit)
			return false;
		n = bpf_probe_read_kernel_str(data + at, NAME_BYTES, BPF_CORE_READ(d, d_name.name));
		if (n <= 0)
			return false;
		*(volatile __u32 *)&e->used = at + n;
		if (parent == d)
			return true; /* a name without a tree, such as memfd:x */
		d = parent;
	}
	return false;
}

static __always_inline void write_paths(struct exec *e, char *data, struct task_struct *t, struct file *exe)
{
	struct fs_struct *fs = BPF_CORE_READ(t, fs);
	struct place root = place_of(&fs->root), cwd = place_of(&fs->pwd);

	e->used = 0;
	if (exe && !write_path(e, data, place_of(&exe->f_path), root, PATH_BYTES))
		e->id.flags |= EXE_CUT;
	e->exe_len = e->used;
	if (fs && !write_path(e, data, cwd, root, PATH_BYTES + PATH_BYTES + NAME_BYTES))
		e->id.flags |= CWD_CUT;
	e->cwd_len = e->used - e->exe_len;
}

static __always_inline void write_exec(struct exec *e, struct task_struct *t)
{
	const struct cred *cred = t->real_cred;

	identify(&e->id, t);
	e->cap_effective = 0;
	if (cred) /* as memory: it was two words before 6.3 and is one since (f122a08b197d) */
		bpf_probe_read_kernel(&e->cap_effective, sizeof(e->cap_effective), &cred->cap_effective);
	e->args_len = 0;
	bpf_probe_read_kernel(&e->comm, sizeof(e->comm), &t->comm);
}

/* The pages were filled by this very exec, so they are there to be read. */
static __always_inline void write_args(struct exec *e, char *data, __u64 from, __u64 len, const __u32 max)
{
	__u64 at = *(volatile __u32 *)&e->used;

	if (len > max) {
		len = max;
		e->id.flags |= ARGS_CUT;
	}
	if (at > PATHS_BYTES)
		return;
	if (bpf_probe_read_user(data + at, len, (void *)from)) {
		e->id.flags |= ARGS_FAULT;
		return;
	}
	e->args_len = len;
}

#define EXEC_RECORD(T, max_)                                      \
	({                                                        \
		struct T *r = ghost_reserve(T, EXEC);             \
		if (r) {                                          \
			write_exec(&r->e, t);                     \
			r->e.arg_start = from;                    \
			write_paths(&r->e, r->data, t, exe);      \
			write_args(&r->e, r->data, from, len, max_); \
			ghost_submit(r);                          \
		}                                                 \
	})

static __always_inline void tell_exec(struct task_struct *t, struct file *exe)
{
	struct mm_struct *mm = t->mm;
	__u64 from = mm ? mm->arg_start : 0;
	__u64 len = mm ? mm->arg_end - from : 0;

	if (len <= ARGS_SMALL)
		EXEC_RECORD(exec_small, ARGS_SMALL);
	else if (len <= ARGS_MEDIUM)
		EXEC_RECORD(exec_medium, ARGS_MEDIUM);
	else
		EXEC_RECORD(exec_large, ARGS_LARGE);
}

static __always_inline void tell_fork(struct task_struct *child)
{
	struct fork *e = ghost_reserve(fork, FORK);

	if (!e)
		return;
	identify(&e->id, child);
	ghost_submit(e);
}

/* The status is chosen as wait_task_zombie() does. */
static __always_inline void tell_exit(struct task_struct *t)
{
	struct signal_struct *sig = t->signal;
	struct end *e = ghost_reserve(end, EXIT);

	if (!e)
		return;
	identify(&e->id, t);
	e->status = sig->flags & SIGNAL_GROUP_EXIT ? sig->group_exit_code : t->group_leader->exit_code;
	e->pad = 0;
	ghost_submit(e);
}

/*
 * A kernel that preempts tasks inside of tracepoints (7.2 does, 6.18 does not)
 * skips a program that a preempted task has begun on the same CPU: of two
 * processes that start at once, one would be missed. So behind each program
 * stands its twin, which tells what the program missed. The program leaves a
 * mark of its thread, the twin, next in the same thread, takes it away: also
 * where there is nothing to tell, because the kernel counts all that is missed,
 * and because what is the last thread may change between the two.
 *
 * Key: the thread modulo the size. Value: the thread and the type of record. A
 * thread that overwrites another's mark makes the twin tell a second time,
 * which enrich sees through; it takes a preemption between the two programs.
 */
#define MARKS 4096
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MARKS);
	__type(key, __u32);
	__type(value, __u32);
} told_by_thread SEC(".maps");

static __always_inline void mark(__u32 type)
{
	__u32 tid = bpf_get_current_pid_tgid(), slot = tid % MARKS;
	__u32 *m = bpf_map_lookup_elem(&told_by_thread, &slot);

	if (m)
		*m = type << 24 | tid; /* a thread id has 22 bits at most */
}

static __always_inline bool take_mark(__u32 type)
{
	__u32 tid = bpf_get_current_pid_tgid(), slot = tid % MARKS;
	__u32 *m = bpf_map_lookup_elem(&told_by_thread, &slot);

	if (m && *m == (type << 24 | tid)) {
		*m = 0;
		return true;
	}
	ghost_count_found();
	return false;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *t, pid_t old_pid, struct linux_binprm *bprm)
{
	tell_exec(t, bprm->file);
	mark(EXEC);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(twin_exec, struct task_struct *t, pid_t old_pid, struct linux_binprm *bprm)
{
	if (!take_mark(EXEC))
		tell_exec(t, bprm->file);
	return 0;
}

static __always_inline bool is_thread(struct task_struct *t)
{
	return t->pid != t->tgid;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	if (!is_thread(child))
		tell_fork(child);
	mark(FORK);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(twin_fork, struct task_struct *parent, struct task_struct *child)
{
	if (!take_mark(FORK) && !is_thread(child))
		tell_fork(child);
	return 0;
}

/* live counts down before the tracepoint, so it is zero for the last thread;
 * for the last two if they race, which user space sorts out. */
static __always_inline bool threads_live(struct task_struct *t)
{
	return t->signal->live.counter;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *t)
{
	if (!threads_live(t))
		tell_exit(t);
	mark(EXIT);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(twin_exit, struct task_struct *t)
{
	if (!take_mark(EXIT) && !threads_live(t))
		tell_exit(t);
	return 0;
}

/* A process is told by its leader; if the leader has ended before the others,
 * by each of these. */
static __always_inline bool stands_for_process(struct task_struct *t)
{
	if (t->pid == t->tgid)
		return t->mm || t->flags & PF_KTHREAD;
	return t->mm && !t->group_leader->mm;
}

/* Through the sequence file and not the ring: its reader sets the pace, so any
 * number of processes is told without a loss. */
SEC("iter/task")
int process_running(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct exec_running *r;
	struct mm_struct *mm;
	__u32 zero = 0;
	__u64 used;

	if (!t || !stands_for_process(t))
		return 0;
	r = bpf_map_lookup_elem(&running_scratch, &zero);
	if (!r)
		return 0;
	mm = t->mm;
	ghost_stamp(&r->h, RUNNING);
	write_exec(&r->e, t);
	r->e.arg_start = mm ? mm->arg_start : 0;
	write_paths(&r->e, r->data, t, mm ? BPF_CORE_READ(mm, exe_file) : NULL);
	used = (*(volatile __u32 *)&r->e.used + 7ULL) & ~7ULL; /* the next one begins aligned */
	if (used > PATHS_BYTES)
		return 0;
	bpf_seq_write(ctx->meta->seq, r, sizeof(struct exec) + used);
	return 0;
}
