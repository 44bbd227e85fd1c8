/**
 * The end of the lease: save the documents, let the service go on, say what happened.
 */
import { Dialog } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import type { ISaveReport } from './documents';
import { clockTime } from './lease';
import type { LeaseModel } from './model';
import type { Lease } from './wire';

export interface IReclaimOptions {
  readonly model: LeaseModel;
  readonly save: () => Promise<ISaveReport>;
  /** The hub's page to start another session from. */
  readonly homeUrl: string;
}

/** Save, report to the service, and tell the user. */
export async function endSession(lease: Lease, options: IReclaimOptions): Promise<void> {
  const report = await options.save();
  try {
    await options.model.saved();
  } catch (error) {
    // The session is stopped all the same, only later; the user need not know.
    console.warn('Nimbus was not told that the documents are saved.', error);
  }
  // Dialogs of a failed save or a lost connection would keep this one waiting.
  Dialog.flush();
  const { button } = await new Dialog({
    body: endBody(lease, report, options.model.now),
    buttons: [
      Dialog.cancelButton({ label: 'Stay on this page' }),
      Dialog.okButton({ label: 'Start a new session' })
    ],
    hasClose: false,
    title: 'The lease of this session has ended'
  }).launch();
  if (button.accept) {
    window.location.assign(options.homeUrl);
  }
}

function endBody(lease: Lease, report: ISaveReport, now: number): Widget {
  const node = document.createElement('div');
  node.className = 'jp-nimbus-End';
  const time = clockTime(lease.ended_at ?? lease.now, now);
  const reason = lease.reason.replace(/\.$/, '');
  node.append(
    paragraph(reason === '' ? `It ended at ${time}.` : `It ended at ${time}: ${reason}.`)
  );
  for (const { path, reason } of report.failed) {
    node.append(paragraph(`Not saved: ${path} (${reason}).`, 'jp-nimbus-End-failed'));
  }
  node.append(paragraph(savedSentence(report)));
  node.append(paragraph('The session is stopped; what its kernels held in memory is gone.'));
  return new Widget({ node });
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
