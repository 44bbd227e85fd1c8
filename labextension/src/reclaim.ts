/**
 * The end of the lease: save the documents, let the service go on, say what happened.
 */
import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import type { ISaveReport } from './documents';
import { endSentence, scriptSentence } from './lease';
import type { LeaseModel } from './model';

const LOOK_MILLISECONDS = 1_500;

export interface IReclaimOptions {
  readonly model: LeaseModel;
  readonly save: () => Promise<ISaveReport>;
  /** Return the paths of the documents that are open. */
  readonly opened: () => readonly string[];
  /** The hub's page to start another session from, and what it is to lead back to. */
  readonly homeUrl: () => string;
}

/** Save, report to the service, and tell the user. */
export async function endSession(options: IReclaimOptions): Promise<void> {
  const { model } = options;
  const opened = options.opened();
  const report = await options.save();
  try {
    await model.saved(opened);
  } catch (error) {
    // The session is stopped all the same, only later; the user need not know.
    console.warn('Nimbus was not told that the documents are saved.', error);
  }
  // Dialogs of a failed save or a lost connection would keep this one waiting.
  Dialog.flush();
  const body = new EndBody(model, report);
  const { button } = await new Dialog({
    body,
    buttons: [
      Dialog.cancelButton({ label: 'Stay on this page' }),
      Dialog.okButton({ label: 'Start a new session' })
    ],
    hasClose: false,
    title: 'The lease of this session has ended'
  }).launch();
  if (button.accept) {
    window.location.assign(options.homeUrl());
  }
}

/** What is told of the end; it follows the user's script until the server is gone. */
class EndBody extends Widget {
  constructor(
    private readonly _model: LeaseModel,
    report: ISaveReport
  ) {
    super();
    this.addClass('jp-nimbus-End');
    this._script.setAttribute('role', 'status');
    this.node.append(this._reason);
    for (const { path, reason } of report.failed) {
      this.node.append(paragraph(`Not saved: ${path} (${reason}).`, 'jp-nimbus-End-failed'));
    }
    this.node.append(
      paragraph(savedSentence(report)),
      this._script,
      paragraph('The session is stopped; what its kernels held in memory is gone.')
    );
    this._show();
    _model.changed.connect(this._show, this);
    this._timer = setInterval(() => void this._look(), LOOK_MILLISECONDS);
  }

  override dispose(): void {
    clearInterval(this._timer);
    this._model.changed.disconnect(this._show, this);
    super.dispose();
  }

  private async _look(): Promise<void> {
    try {
      await this._model.refresh();
    } catch {
      // The server is stopped, and nothing more will be heard from here.
      clearInterval(this._timer);
      if (this._script.textContent !== '') {
        this._script.textContent = 'What your script wrote is in ~/.nimbus/before-reclaim.log.';
      }
    }
  }

  private _show(): void {
    const { lease, now } = this._model;
    if (lease !== null) {
      this._reason.textContent = endSentence(lease, now);
      this._script.textContent = scriptSentence(lease);
    }
  }

  private readonly _reason = paragraph('');
  private readonly _script = paragraph('');
  private readonly _timer: ReturnType<typeof setInterval>;
}

function savedSentence(report: ISaveReport): string {
  if (report.failed.length > 0) {
    return 'Copy what you need from this page before you leave it.';
  }
  return report.saved.length === 0
    ? 'All documents were saved already.'
    : `All documents are saved: ${report.saved.join(', ')}.`;
}

function paragraph(text: string, className = ''): HTMLParagraphElement {
  const node = document.createElement('p');
  node.className = className;
  node.textContent = text;
  return node;
}
