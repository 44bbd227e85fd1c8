/**
 * The status bar item: the time left and a button to renew.
 */
import { Widget } from '@lumino/widgets';

import { exactTime, longTime, renewalSentence, shortTime, urgency } from './lease';
import type { IWarning, LeaseModel } from './model';
import type { Lease } from './wire';

export interface IStatusItemOptions {
  readonly model: LeaseModel;
  readonly onRenew: () => void;
  readonly onShow: () => void;
}

export class LeaseStatusItem extends Widget {
  constructor(private readonly _options: IStatusItemOptions) {
    super();
    this.addClass('jp-nimbus-Lease');
    this._time = element('span', 'jp-nimbus-Lease-time', this.node);
    this._time.setAttribute('role', 'timer');
    this._time.addEventListener('click', _options.onShow);
    this._renew = element('button', 'jp-nimbus-Lease-renew', this.node);
    this._renew.type = 'button';
    this._renew.textContent = 'Renew';
    this._renew.addEventListener('click', _options.onRenew);
    // Keeps the focus where it is: losing it may change other items of the status bar, and
    // this one would slide away under the pointer before the button is released.
    this.node.addEventListener('mousedown', event => event.preventDefault());
    this._spoken = element('span', 'jp-nimbus-Lease-spoken', this.node);
    this._spoken.setAttribute('role', 'status');
    _options.model.changed.connect(this._render, this);
    _options.model.warned.connect(this._speakWarning, this);
    _options.model.moved.connect(this._speakEnd, this);
    this._render();
  }

  private _render(): void {
    const { isOver, lease, now, secondsLeft } = this._options.model;
    const isKnown = lease !== null && lease.expires_at !== null && secondsLeft !== null;
    this.node.hidden = !isKnown;
    if (!isKnown) {
      return;
    }
    this.node.dataset.urgency = isOver ? 'critical' : urgency(secondsLeft, lease.warnings_seconds);
    this._time.textContent = isOver ? 'Lease ended' : `Lease ${shortTime(secondsLeft)}`;
    this._time.title = isOver ? lease.reason : endSentences(lease, now);
    this._renew.hidden = isOver;
    this._renew.disabled = !lease.can_renew;
    this._renew.title = renewalSentence(lease, now);
  }

  private _speakWarning(_: LeaseModel, warning: IWarning): void {
    this._spoken.textContent = `The lease ends in ${longTime(warning.secondsLeft)}.`;
  }

  private _speakEnd(model: LeaseModel): void {
    this._spoken.textContent = `The lease ends in ${longTime(model.secondsLeft ?? 0)}.`;
  }

  private readonly _renew: HTMLButtonElement;
  private readonly _spoken: HTMLSpanElement;
  private readonly _time: HTMLSpanElement;
}

function endSentences(lease: Lease, now: number): string {
  const end = lease.expires_at === null ? '' : exactTime(lease.expires_at);
  return `The lease of this session ends ${end}.\n${renewalSentence(lease, now)}`;
}

function element<K extends 'button' | 'span'>(
  tag: K,
  className: string,
  parent: HTMLElement
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.className = className;
  parent.append(node);
  return node;
}
