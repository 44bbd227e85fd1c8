import assert from 'node:assert/strict';
import { test } from 'node:test';

import { idleGangSentence, idlePolicy, idleSentence, idleTime, isIdle } from '../src/idle';
import { renewalSentence } from '../src/lease';
import { at, lease, START } from './leases';

const HOUR = 3600;
const now = (seconds: number) => START + seconds * 1000;
const quiet = lease({
  idle_ends_at: at(2 * HOUR),
  idle_seconds: 2 * HOUR,
  idle_since: at(0),
  idle_warns_at: at(1.5 * HOUR)
});

test('a session is idle from its warning on, and never without one', () => {
  assert.equal(isIdle(quiet, now(1.5 * HOUR - 1)), false);
  assert.equal(isIdle(quiet, now(1.5 * HOUR)), true);
  assert.equal(isIdle(lease(), now(10 * HOUR)), false);
});

test('the sentence says for how long, and when it ends unless the user goes on', () => {
  const sentence = idleSentence(quiet, now(1.5 * HOUR + 20 * 60));
  assert.match(sentence, /^Nothing happened here for 1 hour 50 minutes; the session ends at /);
  assert.match(sentence, / unless you go on\.$/);
  // Notifications are cut after 140 characters.
  assert.ok(sentence.length < 140);
  const told = lease({ ...quiet, idle_ends_at: null });
  assert.equal(idleSentence(told, now(HOUR)), 'Nothing happened here for 1 hour.');
});

test('a gang is told of with what it holds', () => {
  const group = {
    cpus_milli: 1000,
    gpu_milli: 1000,
    gpu_models: [],
    memory_bytes: 1,
    topology: ''
  };
  const gang = lease({
    groups: [
      { ...group, count: 2, gpus: 1, role: 'worker' },
      { ...group, count: 1, gpus: 0, role: 'ps' }
    ],
    idle_since: at(0)
  });
  assert.equal(
    idleGangSentence(gang, now(20 * 60)),
    'Your debug gang (2 workers, 1 ps, 2 GPUs) did nothing for 20 minutes.'
  );
});

test('the details say the rule, and how it stands', () => {
  assert.equal(idlePolicy(lease(), now(0)), null);
  assert.equal(
    idlePolicy(quiet, now(HOUR)),
    'Ends when nothing happens for 2 hours. Nothing happened for 1 hour.'
  );
  assert.equal(
    idlePolicy(lease({ idle_ends: false, idle_seconds: 1200 }), now(0)),
    'You are told when nothing happens for 20 minutes.'
  );
  assert.equal(idleTime(lease(), now(0)), '');
});

test('until when a lease can be renewed is said before it is too late', () => {
  assert.match(renewalSentence(lease(), now(0)), /^It can be renewed until [^,]+\.$/);
  const last = lease({ can_renew: false, renewals_left: 1 });
  assert.match(renewalSentence(last, now(0)), /^It can be renewed until [^,]+, 1 more time\.$/);
  const never = lease({ renewable_until: null, renewals_left: 0 });
  assert.equal(renewalSentence(never, now(0)), 'It cannot be renewed any more.');
});
