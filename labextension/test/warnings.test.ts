import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Warnings } from '../src/warnings';
import { at, lease, START } from './leases';

const now = (seconds: number) => START + seconds * 1000;

test('each warning is given once', () => {
  const warnings = new Warnings();
  const given: number[] = [];
  for (let second = 0; second <= 7200; second++) {
    const due = warnings.due(lease(), now(second));
    if (due !== null) {
      given.push(7200 - second, due);
    }
  }
  assert.deepEqual(given, [900, 900, 300, 300, 60, 60]);
});

test('after sleep only the most urgent of the passed warnings is given', () => {
  const warnings = new Warnings();
  assert.equal(warnings.due(lease(), now(0)), null);
  assert.equal(warnings.due(lease(), now(7000)), 300);
  assert.equal(warnings.due(lease(), now(7001)), null);
  assert.equal(warnings.due(lease(), now(7150)), 60);
});

test('a page loaded late is warned at once', () => {
  assert.equal(new Warnings().due(lease(), now(7000)), 300);
});

test('a lease of two minutes warns at one minute only', () => {
  const warnings = new Warnings();
  const short = lease({ expires_at: at(120), length_seconds: 120 });
  assert.equal(warnings.due(short, now(0)), null);
  assert.equal(warnings.due(short, now(59)), null);
  assert.equal(warnings.due(short, now(60)), 60);
  assert.equal(warnings.due(short, now(61)), null);
});

test('a renewal brings the warnings of the new end', () => {
  const warnings = new Warnings();
  assert.equal(warnings.due(lease(), now(7150)), 60);
  const renewed = lease({ expires_at: at(7150 + 7200) });
  assert.equal(warnings.due(renewed, now(7150)), null);
  assert.equal(warnings.due(renewed, now(7150 + 6300)), 900);
});

test('a renewal by four minutes does not warn of five', () => {
  const warnings = new Warnings();
  warnings.due(lease(), now(7150));
  const renewed = lease({ expires_at: at(7150 + 240) });
  assert.equal(warnings.due(renewed, now(7150)), null);
  assert.equal(warnings.due(renewed, now(7150 + 180)), 60);
});

test('nothing is warned about at the end, without an end, or in another state', () => {
  assert.equal(new Warnings().due(lease(), now(7200)), null);
  assert.equal(new Warnings().due(lease({ expires_at: null }), now(0)), null);
  assert.equal(new Warnings().due(lease({ state: 'expiring' }), now(7199)), null);
});
