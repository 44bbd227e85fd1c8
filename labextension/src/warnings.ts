/**
 * Which warning is due: each once per end of the lease.
 *
 * A tab that was hidden or a machine that slept may pass several at once; only the most
 * urgent one is given then. A time that is not shorter than the lease itself is no warning:
 * a lease of two minutes warns at one minute, not at once.
 */
import { secondsLeft } from './lease';
import type { Lease } from './wire';

export class Warnings {
  /** Return the warning that is due now, in seconds before the end, or null. */
  due(lease: Lease, now: number): number | null {
    const left = secondsLeft(lease, now);
    if (left === null || lease.state !== 'active') {
      return null;
    }
    if (lease.expires_at !== this._end) {
      this._restart(lease, left);
    }
    const passed = this._pending.filter(seconds => left <= seconds);
    if (passed.length === 0 || left === 0) {
      return null;
    }
    this._pending = this._pending.filter(seconds => left > seconds);
    return Math.min(...passed);
  }

  private _restart(lease: Lease, left: number): void {
    // After a renewal the time left is the whole length; a page that has just been
    // loaded may find a lease in its last minutes, so there the granted length counts.
    const length = this._end === null ? Math.max(lease.length_seconds, left) : left;
    this._pending = lease.warnings_seconds.filter(seconds => seconds < length);
    this._end = lease.expires_at;
  }

  private _end: string | null = null;
  private _pending: number[] = [];
}
