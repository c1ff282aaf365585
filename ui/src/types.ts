// What /api/v1 answers, as far as the page reads it. Lists may be null.

export interface Status {
  version: string;
  host: { name: string; kernel: string; arch: string; boot_id: string; boot_time?: string };
  started: string;
  uptime_ns: number;
  agent: { cpu_percent: number; rss_bytes: number };
  events: { total: number; per_second: number };
  lost: { total: number; by_stage: { stage: string; sensor?: string; count: number }[] | null };
  budget: {
    state: 'ok' | 'shedding'; cpu_percent: number; cpu_limit_percent: number;
    memory_bytes: number; memory_limit_bytes: number; shed: string[] | null;
  };
  store: {
    bytes: number; rows: number; oldest?: string; newest?: string;
    retention_ns: number; retention_bytes: number; error?: string;
  };
  sensors: { name: string; doc: string; state: string; error?: string; events: number; lost: number }[] | null;
  programs: { name: string; sensor: string; runs: number; ns_per_run: number; cpu_percent: number }[] | null;
  features_off: number;
}

export interface Tier { name: string; taken: boolean; reason?: string }
export interface Hook { what: string; without: string; tier: string; tiers: Tier[] | null }

export interface Doctor {
  ok: boolean;
  kernel: string;
  arch: string;
  lockdown: string;
  user: { uid: number; capabilities: string[] | null; missing: string[] | null };
  probes: { name: string; since: string; ok: boolean; reason?: string; loss: string }[] | null;
  sensors: { name: string; doc: string; ok: boolean; error?: string; hooks: Hook[] | null }[] | null;
  notes: string[] | null;
}

export interface MapNode {
  id: string; name: string; kind: 'service' | 'external';
  hosts?: number; processes?: number;
  bytes_sent?: number; bytes_received?: number; connections?: number; failures?: number;
  requests?: number; errors?: number;
}

export interface MapEdge {
  source: string; target: string; transport: string; port: number;
  connections?: number; open?: number; failures?: number;
  bytes_sent?: number; bytes_received?: number; bytes_per_second?: number;
  retransmits?: number; drops?: number; rtt_ns?: number;
  requests?: number; errors?: number; p50_ns?: number; p99_ns?: number; protocols?: string[] | null;
}

export interface ServiceMap { nodes: MapNode[] | null; edges: MapEdge[] | null; window_ns: number; complete: boolean }

export interface Fields {
  tables: { name: string; kind: string; columns: Field[] }[];
  aliases: Record<string, unknown>;
}

export interface Field { name: string; sql: string; type: string; doc: string }

/** Rate, errors and durations. */
export interface RED {
  requests: number; rate: number; errors: number; error_rate: number;
  p50_ns: number; p90_ns: number; p99_ns: number; max_ns: number;
}

export interface Route extends RED { name: string; protocol: string; heat: number[] | null }
export interface Call { service: string; requests: number; errors: number; p99_ns: number }

export interface Service extends RED {
  name: string; kind: 'service' | 'external'; protocols: string[] | null;
  routes: Route[] | null; more_routes?: number; calls: Call[] | null; callers: Call[] | null;
}

export interface Services { window_ns: number; services: Service[] | null; complete: boolean }

export interface Bucket { time: string; requests: number; errors: number; p50_ns: number; p99_ns: number }
export interface ServiceDetail extends Service { window_ns: number; step_ns: number; buckets: Bucket[] | null; complete: boolean }

export interface Change { service: string; route: string; what: 'latency' | 'errors' | 'rate'; before: number; now: number; since: string; sentence: string }

export interface Overview {
  window_ns: number; changes: Change[] | null; services: (RED & { name: string; kind: 'service' | 'external' })[] | null;
  hosts: { name: string; kernel: string; arch: string }[] | null; complete: boolean;
}

export interface TraceBrief {
  trace_id: string; time: string; duration_ns: number;
  root: { service: string; name: string; protocol: string; status?: string; error?: string };
  services: string[] | null; spans: number; errors: number; inferred: boolean; complete: boolean;
}

export interface PathPart { span_id: string; from_ns: number; to_ns: number }
