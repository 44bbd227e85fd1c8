/**
 * Sessions and debug gangs in which nothing happens, in words, and when to tell of them.
 *
 * Pure: instants are milliseconds since the epoch, "now" is in the service's time.
 */
import { clockTime, longTime } from './lease';
import type { Lease } from './wire';

/** Return whether nothing happened for so long that the user is to hear of it. */
export function isIdle(lease: Lease, now: number): boolean {
  return lease.idle_warns_at !== null && now >= Date.parse(lease.idle_warns_at);
}

/** Return for how long nothing happened, in words; empty while that is not known. */
export function idleTime(lease: Lease, now: number): string {
  return lease.idle_since === null
    ? ''
    : longTime(Math.max(0, (now - Date.parse(lease.idle_since)) / 1000));
}

/** Say what comes of it if nothing happens in a session. */
export function idleSentence(lease: Lease, now: number): string {
  const quiet = `Nothing happened here for ${idleTime(lease, now)}`;
  return lease.idle_ends_at === null
    ? `${quiet}.`
    : `${quiet}; the session ends at ${clockTime(lease.idle_ends_at, now)} unless you go on.`;
}

/** Say that a debug gang does nothing, and what it holds meanwhile. */
export function idleGangSentence(gang: Lease, now: number): string {
  const held = gang.groups.map(({ count, role }) => `${count} ${role}${count === 1 ? '' : 's'}`);
  const gpus = gang.groups.reduce((sum, group) => sum + group.count * group.gpus, 0);
  if (gpus > 0) {
    held.push(`${gpus} GPU${gpus === 1 ? '' : 's'}`);
  }
  const end = gang.idle_ends_at === null ? '' : ` It ends at ${clockTime(gang.idle_ends_at, now)}.`;
  return `Your debug gang (${held.join(', ')}) did nothing for ${idleTime(gang, now)}.${end}`;
}

/** Say after what time without activity a session ends; null where it never does. */
export function idlePolicy(lease: Lease, now: number): string | null {
  if (lease.idle_seconds === null) {
    return null;
  }
  const rule = lease.idle_ends
    ? `Ends when nothing happens for ${longTime(lease.idle_seconds)}.`
    : `You are told when nothing happens for ${longTime(lease.idle_seconds)}.`;
  const quiet = idleTime(lease, now);
  return quiet === '' ? rule : `${rule} Nothing happened for ${quiet}.`;
}
