/**
 * What this page knows of its user: when there was input, and which documents are open.
 *
 * It is told to the user's own server while the page is visible, and at once when the user
 * comes back. The server answers with the debug gangs of the session that do nothing.
 */
import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { Lease } from './wire';

export interface IPresenceApi {
  /** Tell how long ago there was input and what is open; return the idle debug gangs. */
  tell(inputSeconds: number, opened: readonly string[]): Promise<readonly Lease[]>;
}

export interface IPresenceOptions {
  readonly api: IPresenceApi;
  /** Where input arrives: the document. */
  readonly source: EventTarget;
  /** The paths of the open documents. */
  readonly opened: () => readonly string[];
  /** The browser's clock in milliseconds; default `Date.now`. */
  readonly clock?: () => number;
}

const EVENTS = ['keydown', 'pointerdown', 'wheel'];
const INTERVAL_MILLISECONDS = 30_000;
const LONGEST_INTERVAL_MILLISECONDS = 120_000;
/** Who did nothing for so long comes back with the next input. */
const QUIET_MILLISECONDS = 60_000;

export class Presence implements IDisposable {
  constructor(private readonly _options: IPresenceOptions) {
    this._clock = _options.clock ?? Date.now;
    this._inputAt = this._clock();
    for (const name of EVENTS) {
      _options.source.addEventListener(name, this._hear, { capture: true, passive: true });
    }
    this._poll = new Poll({
      auto: false,
      factory: () => this.tell(),
      frequency: {
        backoff: true,
        interval: INTERVAL_MILLISECONDS,
        max: LONGEST_INTERVAL_MILLISECONDS
      },
      name: 'nimbus:presence',
      standby: 'when-hidden'
    });
  }

  /** The debug gangs that do nothing, after each answer. */
  get answered(): ISignal<this, readonly Lease[]> {
    return this._answered;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  dispose(): void {
    for (const name of EVENTS) {
      this._options.source.removeEventListener(name, this._hear, { capture: true });
    }
    this._poll.dispose();
    Signal.clearData(this);
  }

  /** Begin to tell; may be repeated. */
  start(): void {
    if (!this._isStarted) {
      this._isStarted = true;
      void this._poll.refresh();
    }
  }

  /** Tell now. Rejects with the API's error. */
  async tell(): Promise<void> {
    const seconds = Math.max(0, this._clock() - this._inputAt) / 1000;
    this._answered.emit(await this._options.api.tell(seconds, this._options.opened()));
  }

  private readonly _hear = (): void => {
    const now = this._clock();
    const isBack = now - this._inputAt > QUIET_MILLISECONDS;
    this._inputAt = now;
    if (isBack && this._isStarted) {
      void this._poll.refresh();
    }
  };

  private readonly _clock: () => number;
  private readonly _poll: Poll<void>;
  private _answered = new Signal<this, readonly Lease[]>(this);
  private _inputAt: number;
  private _isStarted = false;
}
