/**
 * Saving what is open: notebooks and files with changes, untitled ones too.
 */
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { Widget } from '@lumino/widgets';

/** What became of the open documents; paths in the order they were open. */
export interface ISaveReport {
  readonly saved: readonly string[];
  readonly failed: readonly { readonly path: string; readonly reason: string }[];
}

/** The part of the document manager that saving needs. */
export interface IContexts {
  contextForWidget(widget: Widget): DocumentRegistry.Context | undefined;
}

/** Return the paths of the open documents, each once, in the order of the widgets. */
export function openPaths(widgets: Iterable<Widget>, contexts: IContexts): string[] {
  const paths = new Set<string>();
  for (const widget of widgets) {
    const context = contexts.contextForWidget(widget);
    if (context !== undefined) {
      paths.add(context.path);
    }
  }
  return [...paths];
}

/**
 * Save every open document with changes, all at the same time.
 *
 * A save may ask the user something (the file changed on disk) and then never end by
 * itself: it counts as failed after `timeoutMilliseconds`.
 */
export async function saveDocuments(
  widgets: Iterable<Widget>,
  contexts: IContexts,
  timeoutMilliseconds: number
): Promise<ISaveReport> {
  const dirty = new Set<DocumentRegistry.Context>();
  for (const widget of widgets) {
    const context = contexts.contextForWidget(widget);
    if (context?.model.dirty && !context.model.readOnly) {
      dirty.add(context);
    }
  }
  const outcomes = await Promise.all(
    [...dirty].map(async context => ({
      path: context.path,
      reason: await reasonOfFailure(context.save(), timeoutMilliseconds)
    }))
  );
  return {
    failed: outcomes.flatMap(({ path, reason }) => (reason === null ? [] : [{ path, reason }])),
    saved: outcomes.filter(({ reason }) => reason === null).map(({ path }) => path)
  };
}

async function reasonOfFailure(saving: Promise<void>, timeout: number): Promise<string | null> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string>(resolve => {
    timer = setTimeout(() => resolve(`not saved within ${timeout / 1000} seconds`), timeout);
  });
  const done = saving.then(
    () => null,
    (error: unknown) => (error instanceof Error ? error.message : String(error))
  );
  return Promise.race([done, late]).finally(() => clearTimeout(timer));
}
