import assert from 'node:assert/strict';
import { afterEach, mock, test } from 'node:test';

import { Presence } from '../src/presence';
import type { Lease } from '../src/wire';
import { lease, START } from './leases';

// Polls wait for 30 seconds; the tests do not.
mock.timers.enable({ apis: ['setTimeout'] });

const made: Presence[] = [];
afterEach(() => made.splice(0).forEach(presence => presence.dispose()));

function build() {
  const told: { opened: readonly string[]; seconds: number }[] = [];
  const time = { now: START };
  const source = new EventTarget();
  const gangs: Lease[] = [];
  const api = {
    tell: async (seconds: number, opened: readonly string[]) => {
      told.push({ opened, seconds });
      return gangs;
    }
  };
  const presence = new Presence({ api, clock: () => time.now, opened: () => ['a.ipynb'], source });
  made.push(presence);
  const pass = (seconds: number) => (time.now += seconds * 1000);
  return { gangs, pass, presence, source, told };
}

/** Let the poll do what was asked of it. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) {
    mock.timers.tick(1);
    await new Promise(resolve => setImmediate(resolve));
  }
}

test('the server is told how long ago there was input, and what is open', async () => {
  const { pass, presence, source, told } = build();
  pass(40);
  await presence.tell();
  source.dispatchEvent(new Event('keydown'));
  pass(5);
  await presence.tell();
  assert.deepEqual(told, [
    { opened: ['a.ipynb'], seconds: 40 },
    { opened: ['a.ipynb'], seconds: 5 }
  ]);
});

test('who comes back is told of at once, who goes on is not', async () => {
  const { pass, presence, source, told } = build();
  presence.start();
  presence.start();
  await settle();
  assert.equal(told.length, 1);
  pass(30);
  source.dispatchEvent(new Event('pointerdown'));
  await settle();
  assert.equal(told.length, 1);
  pass(61);
  source.dispatchEvent(new Event('wheel'));
  await settle();
  assert.deepEqual(
    told.map(({ seconds }) => seconds),
    [0, 0]
  );
});

test('gangs that do nothing are passed on with each answer', async () => {
  const { gangs, presence } = build();
  const heard: string[][] = [];
  presence.answered.connect((_, idle) => heard.push(idle.map(({ id }) => id)));
  gangs.push(lease({ id: 'l-7' }));
  await presence.tell();
  gangs.pop();
  await presence.tell();
  assert.deepEqual(heard, [['l-7'], []]);
});

test('a page that is closed hears no input any more', async () => {
  const { pass, presence, source, told } = build();
  presence.start();
  await settle();
  presence.dispose();
  pass(100);
  source.dispatchEvent(new Event('keydown'));
  await settle();
  assert.equal(told.length, 1);
});
