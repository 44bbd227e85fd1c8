/**
 * The session's lease as the page knows it: polled, counted down locally, warned about once.
 *
 * The model decides when something happens and says so by signals; views only render.
 * All times are the service's: `now` adds the offset measured with each answer.
 */
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import { isIdle } from './idle';
import { isReclaimed, secondsLeft } from './lease';
import type { ITicker } from './ticker';
import { Warnings } from './warnings';
import type { Lease } from './wire';

/** The requests of the model; see `request.ts`. */
export interface ILeaseApi {
  /** Return the session's lease; null where there is none. */
  lease(): Promise<Lease | null>;
  renew(): Promise<Lease>;
  keep(): Promise<Lease>;
  saved(opened: readonly string[]): Promise<Lease>;
  release(): Promise<Lease>;
}

export interface IWarning {
  readonly lease: Lease;
  readonly secondsLeft: number;
  /** Whether no other warning follows. */
  readonly isLast: boolean;
}

export interface IModelOptions {
  readonly api: ILeaseApi;
  readonly ticker: ITicker;
  /** The browser's clock in milliseconds; default `Date.now`. */
  readonly clock?: () => number;
}

/** Shorter than the time the service gives for saving (10 s), so that no reclaim is missed. */
const INTERVAL_MILLISECONDS = 8_000;
const LONGEST_INTERVAL_MILLISECONDS = 60_000;

export class LeaseModel implements IDisposable {
  constructor(options: IModelOptions) {
    this._api = options.api;
    this._clock = options.clock ?? Date.now;
    options.ticker.ticked.connect(this.tick, this);
    this._poll = new Poll({
      auto: false,
      factory: () => this.refresh(),
      frequency: {
        backoff: true,
        interval: INTERVAL_MILLISECONDS,
        max: LONGEST_INTERVAL_MILLISECONDS
      },
      name: 'nimbus:lease',
      standby: 'when-hidden'
    });
  }

  /** The lease or its time left changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** The lease has another end than before. */
  get moved(): ISignal<this, Lease> {
    return this._moved;
  }

  /** A warning is due. */
  get warned(): ISignal<this, IWarning> {
    return this._warned;
  }

  /** Nothing happens in the session and its user is to hear of it; null: not any more. */
  get idled(): ISignal<this, Lease | null> {
    return this._idled;
  }

  /** The lease ends now: save. Emitted once. */
  get reclaimed(): ISignal<this, Lease> {
    return this._reclaimed;
  }

  /** The lease; null before the first answer and where there is none. */
  get lease(): Lease | null {
    return this._lease;
  }

  /** Now by the service's clock. */
  get now(): number {
    return this._clock() + this._offset;
  }

  /** The seconds until the end; null while it is unknown. */
  get secondsLeft(): number | null {
    return this._lease === null ? null : secondsLeft(this._lease, this.now);
  }

  /** Whether the user was told that nothing happens in the session. */
  get isIdle(): boolean {
    return this._isIdle;
  }

  /** Whether the lease is over for this page. */
  get isOver(): boolean {
    return this._isOver;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  /** Begin to poll. */
  start(): void {
    void this._poll.refresh();
  }

  /** Fetch the lease; calls while one is under way share it. Rejects with the API's error. */
  refresh(): Promise<void> {
    this._fetching ??= this._fetch().finally(() => (this._fetching = null));
    return this._fetching;
  }

  /** Move the end of the lease as the policy allows. */
  async renew(): Promise<Lease> {
    try {
      return this._accept(await this._api.renew());
    } catch (error) {
      // What refused it, as the end of the lease, is not known here yet.
      this.refresh().catch(() => undefined);
      throw error;
    }
  }

  /** Tell the service that the documents are saved, and which are open. */
  async saved(opened: readonly string[]): Promise<Lease> {
    return this._accept(await this._api.saved(opened));
  }

  /** Say that the session is wanted though nothing happens in it; its end stays. */
  async keep(): Promise<Lease> {
    return this._accept(await this._api.keep());
  }

  /** Give the lease back now; `reclaimed` follows as at the end of its time. */
  async release(): Promise<Lease> {
    return this._accept(await this._api.release());
  }

  /** Ask at once: the page was hidden, where nothing is polled. */
  wake(): void {
    if (this._lease !== null && !this._isOver) {
      this.refresh().catch(() => undefined);
    }
  }

  /** Count down: called each second. */
  tick(): void {
    const lease = this._lease;
    if (lease === null || this._isOver) {
      return;
    }
    this._warn(lease);
    this._tellIdle(lease);
    this._changed.emit();
    if (this.secondsLeft === 0) {
      // The next tick asks again, whatever came of this one.
      this.refresh().catch(() => undefined);
    }
  }

  private async _fetch(): Promise<void> {
    const asked = this._clock();
    const lease = await this._api.lease();
    if (lease === null) {
      this._stopWithoutLease();
      return;
    }
    this._offset = Date.parse(lease.now) - (asked + this._clock()) / 2;
    this._accept(lease);
  }

  private _stopWithoutLease(): void {
    if (this._lease === null) {
      void this._poll.stop();
    }
  }

  private _accept(lease: Lease): Lease {
    const before = this._lease;
    if (before !== null && lease.version < before.version) {
      // An answer that was overtaken by a later one.
      return before;
    }
    this._lease = lease;
    if (before !== null && before.expires_at !== null && before.expires_at !== lease.expires_at) {
      this._moved.emit(lease);
    }
    if (isReclaimed(lease) && !this._isOver) {
      this._isOver = true;
      void this._poll.stop();
      this._reclaimed.emit(lease);
    }
    this._tellIdle(lease);
    this._changed.emit();
    if (!this._isOver) {
      this._warn(lease);
    }
    return lease;
  }

  private _tellIdle(lease: Lease): void {
    const idle = !this._isOver && isIdle(lease, this.now);
    if (idle !== this._isIdle) {
      this._isIdle = idle;
      this._idled.emit(idle ? lease : null);
    }
  }

  private _warn(lease: Lease): void {
    const seconds = this._warnings.due(lease, this.now);
    if (seconds !== null) {
      this._warned.emit({
        isLast: seconds === Math.min(...lease.warnings_seconds),
        lease,
        secondsLeft: this.secondsLeft ?? 0
      });
    }
  }

  private readonly _api: ILeaseApi;
  private readonly _clock: () => number;
  private readonly _poll: Poll<void>;
  private readonly _warnings = new Warnings();
  private _changed = new Signal<this, void>(this);
  private _moved = new Signal<this, Lease>(this);
  private _warned = new Signal<this, IWarning>(this);
  private _reclaimed = new Signal<this, Lease>(this);
  private _idled = new Signal<this, Lease | null>(this);
  private _fetching: Promise<void> | null = null;
  private _isIdle = false;
  private _isOver = false;
  private _lease: Lease | null = null;
  private _offset = 0;
}
