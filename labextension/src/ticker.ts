/**
 * A tick each second, also in a hidden tab.
 *
 * Browsers slow the timers of hidden tabs down to one a minute, but give a session only
 * seconds to save its documents when the lease ends. Timers of a worker are not slowed.
 */
import type { IDisposable } from '@lumino/disposable';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

export interface ITicker extends IDisposable {
  readonly ticked: ISignal<ITicker, void>;
}

const PROGRAM = 'setInterval(() => postMessage(null), 1000);';

export class Ticker implements ITicker {
  constructor() {
    try {
      const url = URL.createObjectURL(new Blob([PROGRAM], { type: 'text/javascript' }));
      this._worker = new Worker(url);
      this._worker.onmessage = () => this._ticked.emit();
      this._worker.onerror = () => this._startTimer();
      URL.revokeObjectURL(url);
    } catch {
      // A content security policy may forbid workers from a blob.
      this._startTimer();
    }
  }

  get ticked(): ISignal<this, void> {
    return this._ticked;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    this._isDisposed = true;
    this._worker?.terminate();
    window.clearInterval(this._timer);
    Signal.clearData(this);
  }

  private _startTimer(): void {
    this._timer = window.setInterval(() => this._ticked.emit(), 1000);
  }

  private _isDisposed = false;
  private _ticked = new Signal<this, void>(this);
  private _timer: number | undefined;
  private _worker: Worker | undefined;
}
