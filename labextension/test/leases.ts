/** Leases for tests: active for two hours from START, if not said otherwise. */
import type { Lease } from '../src/wire';

export const START = Date.parse('2026-11-23T12:00:00Z');

/** Return the instant so many seconds after START. */
export function at(seconds: number): string {
  return new Date(START + seconds * 1000).toISOString();
}

export function lease(changes: Partial<Lease> = {}): Lease {
  return {
    active_at: at(0),
    can_renew: true,
    cpu_seconds: 0,
    created_at: at(0),
    datacenter: null,
    ended_at: null,
    environment: 'default',
    expected_seconds: null,
    expires_at: at(7200),
    gpu_seconds: 0,
    granted_at: at(0),
    groups: [],
    id: 'l-1',
    idle_ends: true,
    idle_ends_at: null,
    idle_reason: '',
    idle_seconds: null,
    idle_since: null,
    idle_warns_at: null,
    inputs: [],
    is_ended: false,
    is_preemptible: false,
    kind: 'session',
    latest_end: at(43_200),
    length_seconds: 7200,
    name: '',
    note: '',
    now: at(0),
    opened: [],
    outputs: [],
    owner: 'ada',
    parent: null,
    placement: '',
    position: null,
    priority: 0,
    queue: 'default',
    reason: '',
    reason_code: '',
    renewable_until: at(43_200),
    renewal_seconds: 7200,
    renewals: 0,
    renewals_left: 100,
    size: '',
    slots: [],
    starts_by: null,
    state: 'active',
    step_bytes: null,
    version: 1,
    warnings_seconds: [900, 300, 60],
    ...changes
  };
}
