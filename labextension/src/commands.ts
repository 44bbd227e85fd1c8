/**
 * The commands, also in the palette under "Nimbus".
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ICommandPalette } from '@jupyterlab/apputils';
import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';

import { leaseDetails } from './details';
import type { ISaveReport } from './documents';
import type { LeaseModel } from './model';

export namespace CommandIDs {
  export const renew = 'nimbus:renew-lease';
  export const keep = 'nimbus:keep-lease';
  export const show = 'nimbus:show-lease';
  export const release = 'nimbus:release-lease';
}

const CATEGORY = 'Nimbus';

export interface ICommandOptions {
  readonly app: JupyterFrontEnd;
  readonly model: LeaseModel;
  readonly palette: ICommandPalette | null;
  readonly save: () => Promise<ISaveReport>;
}

/** Add the commands; they are disabled where there is no lease that lives. */
export function addCommands(options: ICommandOptions): void {
  const { app, model, palette } = options;
  const lives = () => model.lease !== null && !model.isOver;
  app.commands.addCommand(CommandIDs.renew, {
    caption: 'Move the end of the lease of this session',
    execute: () => telling(() => model.renew()),
    isEnabled: () => lives() && model.lease?.can_renew === true,
    label: 'Renew Lease'
  });
  app.commands.addCommand(CommandIDs.keep, {
    caption: 'Keep this session although nothing happened in it',
    execute: () => telling(() => model.keep()),
    isEnabled: () => lives() && model.isIdle,
    label: 'Keep Idle Session'
  });
  app.commands.addCommand(CommandIDs.show, {
    caption: 'Show what the lease of this session holds, and until when',
    execute: () => showLease(options),
    isEnabled: () => model.lease !== null,
    label: 'Show Lease'
  });
  app.commands.addCommand(CommandIDs.release, {
    caption: 'Save all documents, give the lease back and stop this session',
    execute: () => telling(() => releaseLease(options)),
    isEnabled: lives,
    label: 'Give Lease Back…'
  });
  for (const command of Object.values(CommandIDs)) {
    palette?.addItem({ category: CATEGORY, command });
  }
  model.changed.connect(refresherOfEnabled(app));
}

/** Return a function that tells the palette when other commands are enabled than before. */
function refresherOfEnabled(app: JupyterFrontEnd): () => void {
  const ids = Object.values(CommandIDs);
  let before = '';
  return () => {
    const enabled = ids.filter(id => app.commands.isEnabled(id)).join();
    if (enabled !== before) {
      before = enabled;
      ids.forEach(id => app.commands.notifyCommandChanged(id));
    }
  };
}

/** Run an action and tell the sentence of its failure. */
async function telling(action: () => Promise<unknown>): Promise<void> {
  try {
    await action();
  } catch (error) {
    Notification.emit(error instanceof Error ? error.message : String(error), 'error', {
      autoClose: false
    });
  }
}

async function showLease({ app, model }: ICommandOptions): Promise<void> {
  if (model.lease === null) {
    return;
  }
  const canRenew = app.commands.isEnabled(CommandIDs.renew);
  const { button } = await showDialog({
    body: leaseDetails(model, model.lease),
    buttons: [
      Dialog.cancelButton({ label: 'Close' }),
      ...(canRenew ? [Dialog.okButton({ label: 'Renew' })] : [])
    ],
    title: 'Lease of this session'
  });
  if (button.accept) {
    await app.commands.execute(CommandIDs.renew);
  }
}

async function releaseLease({ model, save }: ICommandOptions): Promise<void> {
  const { button } = await showDialog({
    body: 'All open documents get saved, then this session is stopped. What kernels hold in memory is lost.',
    buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Give back' })],
    title: 'Give the lease back?'
  });
  if (!button.accept) {
    return;
  }
  const { failed } = await save();
  if (failed.length > 0) {
    const names = failed.map(({ path, reason }) => `${path} (${reason})`).join(', ');
    throw new Error(`The lease is kept, as this could not be saved: ${names}.`);
  }
  await model.release();
}
