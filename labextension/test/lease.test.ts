import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  endSentence,
  longTime,
  scriptSentence,
  secondsLeft,
  shortTime,
  urgency
} from '../src/lease';
import { lease, START } from './leases';

test('the status bar shows seconds only in the last ten minutes', () => {
  const times = { 7200: '2h 0m', 6150: '1h 42m', 3599: '59m', 600: '10m', 599: '9:59', 1: '0:01' };
  for (const [seconds, text] of Object.entries(times)) {
    assert.equal(shortTime(Number(seconds)), text);
  }
});

test('a fraction of a second is still time left', () => {
  assert.equal(shortTime(59.1), '1:00');
  assert.equal(shortTime(0.2), '0:01');
  assert.equal(shortTime(0), '0:00');
});

test('words round to what a person would say', () => {
  assert.equal(longTime(899.4), '15 minutes');
  assert.equal(longTime(6150), '1 hour 43 minutes');
  assert.equal(longTime(7200), '2 hours');
  assert.equal(longTime(60), '1 minute');
  assert.equal(longTime(40.2), '41 seconds');
  assert.equal(longTime(1), '1 second');
});

test('urgency grows with each warning time that has passed', () => {
  const warnings = [900, 300, 60];
  assert.deepEqual(
    [901, 900, 300, 60, 0].map(left => urgency(left, warnings)),
    ['calm', 'soon', 'urgent', 'critical', 'critical']
  );
  assert.equal(urgency(10, []), 'calm');
});

test('the time left never is negative, and unknown without an end', () => {
  const now = Date.parse('2026-11-23T12:00:00Z');
  assert.equal(secondsLeft(lease({ expires_at: '2026-11-23T12:01:30+00:00' }), now), 90);
  assert.equal(secondsLeft(lease({ expires_at: '2026-11-23T11:00:00Z' }), now), 0);
  assert.equal(secondsLeft(lease({ expires_at: null }), now), null);
});

test('the end is told with its reason, and with what still runs', () => {
  const note = 'before-reclaim script runs, at most 1m';
  const ended = lease({ note, reason: 'its lease ran out.', state: 'expiring' });
  assert.match(endSentence(ended, START), /^It ended at \d\d?:\d\d\D*: its lease ran out\.$/);
  assert.match(endSentence(lease(), START), /^It ended at \d\d?:\d\d\D*\.$/);
  assert.equal(scriptSentence(ended), 'Your before-reclaim script runs, at most 1m.');
  assert.equal(scriptSentence(lease({ note: 'renewed although another request waits' })), '');
});
