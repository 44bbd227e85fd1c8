/**
 * The plugin: connects the lease's model with JupyterLab. It shows nothing without a lease.
 */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { JupyterFrontEnd } from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { PageConfig, URLExt } from '@jupyterlab/coreutils';
import { IDocumentManager } from '@jupyterlab/docmanager';
import { IStatusBar } from '@jupyterlab/statusbar';

import { addCommands, CommandIDs } from './commands';
import { openPaths, saveDocuments } from './documents';
import { IdleNotices } from './idleNotices';
import { LeaseModel } from './model';
import { Notices } from './notices';
import { Presence } from './presence';
import { endSession } from './reclaim';
import { LeaseApi } from './request';
import { LeaseStatusItem } from './statusitem';
import { Ticker } from './ticker';

/** Within the time that the service waits for documents to be saved (10 s). */
const SAVE_MILLISECONDS = 7_000;

/** Where documents may be placed. */
const AREAS = ['main', 'left', 'right', 'down'];

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'nimbus-labextension:plugin',
  description: 'Shows, renews and ends the Nimbus lease of this session.',
  autoStart: true,
  requires: [IDocumentManager],
  optional: [ICommandPalette, IStatusBar],
  activate
};

export default plugin;

function activate(
  app: JupyterFrontEnd,
  documents: IDocumentManager,
  palette: ICommandPalette | null,
  statusBar: IStatusBar | null
): void {
  const api = new LeaseApi(app.serviceManager.serverSettings);
  const model = new LeaseModel({ api, ticker: new Ticker() });
  const save = () => saveDocuments(openWidgets(app), documents, SAVE_MILLISECONDS);
  const renew = () => void app.commands.execute(CommandIDs.renew);
  addCommands({ app, model, palette, save });
  new Notices(model, renew);
  const opened = () => openPaths(openWidgets(app), documents);
  const presence = new Presence({ api, opened, source: document });
  const run = (command: string) => () => void app.commands.execute(command);
  new IdleNotices(model, presence, {
    keep: run(CommandIDs.keep),
    keepGang: gang => api.keepGang(gang),
    release: run(CommandIDs.release),
    releaseGang: gang => api.releaseGang(gang)
  });
  model.changed.connect(() => model.lease !== null && presence.start());
  model.reclaimed.connect(() => presence.dispose());
  model.reclaimed.connect(() => void endSession({ homeUrl, model, opened, save }));
  statusBar?.registerStatusItem('nimbus-labextension:lease', {
    align: 'left',
    item: new LeaseStatusItem({
      model,
      onRenew: renew,
      onShow: () => void app.commands.execute(CommandIDs.show)
    }),
    // Nothing to its left changes its width; shown in narrow windows too.
    priority: 1,
    rank: -10
  });
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) {
      model.wake();
    }
  });
  void app.restored.then(() => model.start());
}

function* openWidgets(app: JupyterFrontEnd) {
  for (const area of AREAS) {
    yield* app.shell.widgets(area);
  }
}

/** Return the hub's home page, which leads back to what is shown now; without a hub the server's. */
function homeUrl(): string {
  const prefix = PageConfig.getOption('hubPrefix');
  if (prefix === '') {
    return PageConfig.getBaseUrl();
  }
  const home = URLExt.join(PageConfig.getOption('hubHost'), prefix, 'home');
  return home + URLExt.objectToQueryString({ next: window.location.pathname });
}
