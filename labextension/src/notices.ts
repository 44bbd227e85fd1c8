/**
 * What the user is told: warnings as notifications, the last one also as a dialog.
 */
import { Dialog, Notification } from '@jupyterlab/apputils';

import { clockTime, longTime, renewalSentence } from './lease';
import type { IWarning, LeaseModel } from './model';
import type { Lease } from './wire';

/** Notifications are cut after 140 characters: this goes with the end in one of them. */
const LOSS = 'Documents get saved; unsaved variables of kernels are lost.';
const SHORT_NOTICE_MILLISECONDS = 5_000;

export class Notices {
  constructor(
    private readonly _model: LeaseModel,
    private readonly _renew: () => void
  ) {
    _model.warned.connect((_, warning) => this._warn(warning));
    _model.moved.connect((_, lease) => this._tellEnd(lease));
    _model.reclaimed.connect(() => this._clear());
  }

  private _warn(warning: IWarning): void {
    this._clear();
    const { lease, secondsLeft } = warning;
    const sentence = `The lease ends in ${longTime(secondsLeft)}`;
    const time = clockTime(lease.expires_at ?? lease.now, this._model.now);
    const renew = { callback: this._renew, displayType: 'accent' as const, label: 'Renew' };
    this._notification = Notification.emit(`${sentence} (${time}). ${LOSS}`, 'warning', {
      actions: lease.can_renew ? [renew] : [],
      autoClose: false
    });
    if (warning.isLast) {
      void this._askLast(sentence, lease);
    }
  }

  private async _askLast(title: string, lease: Lease): Promise<void> {
    const dialog = new Dialog({
      body: `At the end all open documents get saved and the session is stopped. What kernels hold in memory is lost. ${renewalSentence(lease, this._model.now)}`,
      buttons: lease.can_renew
        ? [Dialog.cancelButton({ label: 'Let it end' }), Dialog.okButton({ label: 'Renew' })]
        : [Dialog.okButton({ label: 'Understood' })],
      title
    });
    this._dialog = dialog;
    const { button } = await dialog.launch();
    if (button.accept && lease.can_renew) {
      this._renew();
    }
  }

  private _tellEnd(lease: Lease): void {
    this._clear();
    if (lease.expires_at !== null && lease.state === 'active') {
      const time = clockTime(lease.expires_at, this._model.now);
      Notification.emit(`The lease ends at ${time} now.`, 'success', {
        autoClose: SHORT_NOTICE_MILLISECONDS
      });
    }
  }

  private _clear(): void {
    if (this._notification !== null) {
      Notification.dismiss(this._notification);
      this._notification = null;
    }
    this._dialog?.reject();
    this._dialog = null;
  }

  private _dialog: Dialog<unknown> | null = null;
  private _notification: string | null = null;
}
