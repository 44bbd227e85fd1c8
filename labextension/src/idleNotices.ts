/**
 * What the user is told of a session, or of its debug gangs, in which nothing happens.
 */
import { Dialog, Notification } from '@jupyterlab/apputils';

import { idleGangSentence, idleSentence } from './idle';
import type { LeaseModel } from './model';
import type { Presence } from './presence';
import type { Lease } from './wire';

export interface IIdleActions {
  readonly keep: () => void;
  readonly release: () => void;
  readonly keepGang: (gang: Lease) => Promise<unknown>;
  readonly releaseGang: (gang: Lease) => Promise<unknown>;
}

export class IdleNotices {
  constructor(
    private readonly _model: LeaseModel,
    presence: Presence,
    private readonly _actions: IIdleActions
  ) {
    _model.idled.connect((_, lease) => this._tell(lease));
    _model.reclaimed.connect(() => this._clearAll());
    presence.answered.connect((_, gangs) => this._tellGangs(gangs));
  }

  private _tell(lease: Lease | null): void {
    this._clear();
    if (lease === null) {
      return;
    }
    const { keep, release } = this._actions;
    const sentence = idleSentence(lease, this._model.now);
    this._notification = Notification.emit(sentence, 'warning', {
      actions: answers(keep, release),
      autoClose: false
    });
    void this._ask(sentence, lease);
  }

  private async _ask(sentence: string, lease: Lease): Promise<void> {
    const dialog = new Dialog({
      body: `${sentence} (${lease.idle_reason}.) Documents get saved when it ends; what kernels hold in memory is lost.`,
      buttons: [
        Dialog.warnButton({ accept: false, label: 'Give back' }),
        Dialog.okButton({ label: 'Keep' })
      ],
      defaultButton: 1,
      title: 'Is this session still needed?'
    });
    this._dialog = dialog;
    const { button } = await dialog.launch();
    if (button.accept) {
      this._actions.keep();
    } else if (button.label === 'Give back') {
      this._actions.release();
    }
  }

  private _tellGangs(gangs: readonly Lease[]): void {
    for (const [id, notification] of this._gangs) {
      if (!gangs.some(gang => gang.id === id)) {
        Notification.dismiss(notification);
        this._gangs.delete(id);
        this._answered.delete(id);
      }
    }
    for (const gang of gangs) {
      if (this._answered.delete(gang.id)) {
        // This may be what the service said before it heard the user.
        this._gangs.delete(gang.id);
      } else if (!this._gangs.has(gang.id)) {
        this._gangs.set(gang.id, this._tellGang(gang));
      }
    }
  }

  private _tellGang(gang: Lease): string {
    const { keepGang, releaseGang } = this._actions;
    const sentence = idleGangSentence(gang, Date.parse(gang.now));
    // Who has answered is told again if nothing happens again.
    const answered = (action: Promise<unknown>): void => {
      this._answered.add(gang.id);
      void telling(action);
    };
    return Notification.emit(sentence, 'warning', {
      actions: answers(
        () => answered(keepGang(gang)),
        () => answered(releaseGang(gang))
      ),
      autoClose: false
    });
  }

  private _clear(): void {
    if (this._notification !== null) {
      Notification.dismiss(this._notification);
      this._notification = null;
    }
    this._dialog?.reject();
    this._dialog = null;
  }

  private _clearAll(): void {
    this._clear();
    this._tellGangs([]);
  }

  private _dialog: Dialog<unknown> | null = null;
  private readonly _answered = new Set<string>();
  private readonly _gangs = new Map<string, string>();
  private _notification: string | null = null;
}

function answers(keep: () => void, release: () => void): Notification.IAction[] {
  return [
    { callback: keep, displayType: 'accent', label: 'Keep' },
    { callback: release, displayType: 'warn', label: 'Give back' }
  ];
}

/** Wait for an action and tell the sentence of its failure. */
async function telling(action: Promise<unknown>): Promise<void> {
  try {
    await action;
  } catch (error) {
    Notification.emit(error instanceof Error ? error.message : String(error), 'error');
  }
}
