import assert from 'node:assert/strict';
import { test } from 'node:test';

import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { Widget } from '@lumino/widgets';

import { openPaths, saveDocuments } from '../src/documents';

interface IFakeContext {
  path: string;
  model: { dirty: boolean; readOnly: boolean };
  save: () => Promise<void>;
}

function document(path: string, save: () => Promise<void>, changes = {}): IFakeContext {
  return { model: { dirty: true, readOnly: false, ...changes }, path, save };
}

/** Save documents of which each is open in one widget, the first in two. */
function save(documents: IFakeContext[]) {
  const widgets = [...documents, ...documents.slice(0, 1)];
  const contextForWidget = (widget: Widget) => widget as unknown as DocumentRegistry.Context;
  return saveDocuments(widgets as unknown as Widget[], { contextForWidget }, 20);
}

test('what has changes is saved once, the rest is left alone', async () => {
  const saved: string[] = [];
  const saving = (path: string, changes = {}) =>
    document(path, async () => void saved.push(path), changes);
  const report = await save([
    saving('Untitled.ipynb'),
    saving('clean.py', { dirty: false }),
    saving('train.py'),
    saving('read-only.py', { readOnly: true })
  ]);
  assert.deepEqual(report, { failed: [], saved: ['Untitled.ipynb', 'train.py'] });
  assert.deepEqual(saved, ['Untitled.ipynb', 'train.py']);
});

test('a document that cannot be saved is named and does not stop the others', async () => {
  const report = await save([
    document('full.ipynb', () => Promise.reject(new Error('no space left'))),
    document('asks.py', () => new Promise(() => undefined)),
    document('fine.py', () => Promise.resolve())
  ]);
  assert.deepEqual(report, {
    failed: [
      { path: 'full.ipynb', reason: 'no space left' },
      { path: 'asks.py', reason: 'not saved within 0.02 seconds' }
    ],
    saved: ['fine.py']
  });
});

test('each open document is named once, and what is no document is not', () => {
  const [first, second] = ['a.ipynb', 'work/b.py'].map(path => document(path, async () => {}));
  const contextForWidget = (widget: Widget) =>
    widget === null ? undefined : (widget as unknown as DocumentRegistry.Context);
  const widgets = [first, null, second, first] as unknown as Widget[];
  assert.deepEqual(openPaths(widgets, { contextForWidget }), ['a.ipynb', 'work/b.py']);
});
