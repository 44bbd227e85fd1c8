import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';

import { Signal } from '@lumino/signaling';

import type { ILeaseApi } from '../src/model';
import { LeaseModel } from '../src/model';
import type { ITicker } from '../src/ticker';
import type { Lease } from '../src/wire';
import { at, lease, START } from './leases';

/** A service whose clock is an hour ahead of the browser's. */
const AHEAD = 3_600_000;

class FakeTicker implements ITicker {
  readonly ticked = new Signal<this, void>(this);
  readonly isDisposed = false;
  dispose(): void {}
}

class FakeApi implements ILeaseApi {
  answer: Lease | null = lease();
  browserNow = START - AHEAD;
  calls: string[] = [];
  error: Error | null = null;

  lease = () => this._answer('lease');
  renew = () => this._change('renew', { expires_at: at(14_400), renewals: 1 });
  keep = () => this._change('keep', { idle_ends_at: null, idle_since: null, idle_warns_at: null });
  saved = (opened: readonly string[]) => this._change(['saved', ...opened].join(' '), {});
  release = () => this._change('release', { reason: 'given back', state: 'expiring' });

  private async _answer(call: string): Promise<Lease | null> {
    this.calls.push(call);
    if (this.error !== null) {
      throw this.error;
    }
    return this.answer && { ...this.answer, now: new Date(this.browserNow + AHEAD).toISOString() };
  }

  private async _change(call: string, changes: Partial<Lease>): Promise<Lease> {
    this.answer = lease({ ...this.answer, ...changes, version: (this.answer?.version ?? 0) + 1 });
    return (await this._answer(call)) ?? lease();
  }
}

const made: LeaseModel[] = [];
afterEach(() => made.splice(0).forEach(model => model.dispose()));

function build() {
  const api = new FakeApi();
  const ticker = new FakeTicker();
  const model = new LeaseModel({ api, clock: () => api.browserNow, ticker });
  made.push(model);
  const warned: number[] = [];
  const reclaimed: string[] = [];
  model.warned.connect((_, warning) => warned.push(warning.secondsLeft));
  model.reclaimed.connect((_, ended) => reclaimed.push(ended.reason));
  const pass = (seconds: number) => {
    api.browserNow += seconds * 1000;
    ticker.ticked.emit();
    return new Promise(resolve => setImmediate(resolve));
  };
  return { api, model, pass, reclaimed, warned };
}

test('the countdown follows the clock of the service, not of the browser', async () => {
  const { api, model, pass } = build();
  await model.refresh();
  assert.equal(model.secondsLeft, 7200);
  await pass(100);
  assert.equal(model.secondsLeft, 7100);
  assert.deepEqual(api.calls, ['lease']);
});

test('without a lease nothing is shown and nothing is asked', async () => {
  const { api, model, pass } = build();
  api.answer = null;
  await model.refresh();
  await pass(60);
  model.wake();
  assert.equal(model.lease, null);
  assert.deepEqual(api.calls, ['lease']);
});

test('a tab that slept over two warnings gives the more urgent one', async () => {
  const { model, pass, warned } = build();
  await model.refresh();
  await pass(7000);
  await pass(1);
  assert.deepEqual(warned, [200]);
});

test('renewing moves the end and the warnings', async () => {
  const { model, pass, warned } = build();
  await model.refresh();
  await pass(7150);
  const ends: (string | null)[] = [];
  model.moved.connect((_, renewed) => ends.push(renewed.expires_at));
  await model.renew();
  assert.deepEqual(ends, [at(14_400)]);
  assert.equal(model.secondsLeft, 7250);
  await pass(7250 - 800);
  assert.deepEqual(warned, [50, 800]);
});

test('a renewal that fails tells its reason and changes nothing', async () => {
  const { api, model } = build();
  await model.refresh();
  api.error = new Error('the lease has ended');
  await assert.rejects(model.renew(), /the lease has ended/);
  assert.equal(model.secondsLeft, 7200);
});

test('the first end of a lease is not a move', async () => {
  const { api, model } = build();
  api.answer = lease({ active_at: null, expires_at: null, state: 'granted' });
  await model.refresh();
  assert.equal(model.secondsLeft, null);
  model.moved.connect(() => assert.fail('moved'));
  api.answer = lease({ version: 2 });
  await model.refresh();
  assert.equal(model.secondsLeft, 7200);
});

test('at the end the lease is asked until it says that it is reclaimed, once', async () => {
  const { api, model, pass, reclaimed } = build();
  await model.refresh();
  await pass(7200);
  assert.deepEqual(reclaimed, []);
  api.answer = lease({ reason: 'its time was over', state: 'expiring', version: 2 });
  await pass(1);
  await pass(1);
  assert.deepEqual(reclaimed, ['its time was over']);
  assert.equal(model.isOver, true);
  assert.deepEqual(api.calls, ['lease', 'lease', 'lease']);
});

test('a renewal elsewhere is found at the end instead of reclaiming', async () => {
  const { api, model, pass, reclaimed } = build();
  await model.refresh();
  api.answer = lease({ expires_at: at(9000), version: 2 });
  await pass(7200);
  assert.deepEqual(reclaimed, []);
  assert.equal(model.secondsLeft, 1800);
});

test('a reclaim before the time is seen with the next answer', async () => {
  const { api, model, reclaimed } = build();
  await model.refresh();
  api.answer = lease({ is_ended: true, reason: 'the host was lost', state: 'lost', version: 2 });
  await model.refresh();
  assert.deepEqual(reclaimed, ['the host was lost']);
});

test('giving back is a reclaim', async () => {
  const { model, reclaimed } = build();
  await model.refresh();
  await model.release();
  assert.deepEqual(reclaimed, ['given back']);
});

test('an answer that was overtaken is dropped', async () => {
  const { api, model } = build();
  await model.refresh();
  await model.renew();
  api.answer = lease({ version: 1 });
  await model.refresh();
  assert.equal(model.lease?.expires_at, at(14_400));
});

test('a tick while the service is away is not an error', async () => {
  const { api, model, pass } = build();
  await model.refresh();
  api.error = new Error('unreachable');
  await pass(7201);
  await pass(1);
  assert.equal(model.secondsLeft, 0);
  assert.deepEqual(api.calls, ['lease', 'lease', 'lease']);
});

test('an idle session is told of once, and again when it was not idle between', async () => {
  const { api, model, pass } = build();
  const told: (string | null)[] = [];
  model.idled.connect((_, idle) => told.push(idle?.idle_ends_at ?? null));
  api.answer = lease({ idle_ends_at: at(3600), idle_since: at(0), idle_warns_at: at(3000) });
  await model.refresh();
  await pass(2999);
  assert.deepEqual(told, []);
  await pass(1);
  await pass(1);
  await model.refresh();
  assert.deepEqual(told, [at(3600)]);
  assert.equal(model.isIdle, true);
  api.answer = lease({ idle_ends_at: at(6600), idle_since: at(3000), idle_warns_at: at(6000) });
  await model.refresh();
  await pass(3000);
  assert.deepEqual(told, [at(3600), null, at(6600)]);
});

test('keeping an idle session ends what is told of it', async () => {
  const { api, model, pass } = build();
  const told: boolean[] = [];
  model.idled.connect((_, idle) => told.push(idle !== null));
  api.answer = lease({ idle_ends_at: at(60), idle_since: at(0), idle_warns_at: at(30) });
  await model.refresh();
  await pass(31);
  await model.keep();
  await pass(1);
  assert.deepEqual(told, [true, false]);
  assert.deepEqual(api.calls, ['lease', 'keep']);
});

test('a session that is over is not idle', async () => {
  const { api, model, pass } = build();
  const told: boolean[] = [];
  model.idled.connect((_, idle) => told.push(idle !== null));
  api.answer = lease({ idle_ends_at: at(60), idle_since: at(0), idle_warns_at: at(30) });
  await model.refresh();
  await pass(31);
  api.answer = lease({ ...api.answer, reason: 'idle for 1m', state: 'expiring', version: 2 });
  await model.refresh();
  assert.deepEqual(told, [true, false]);
  assert.equal(model.isIdle, false);
});
