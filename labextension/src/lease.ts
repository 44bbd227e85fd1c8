/**
 * What a lease says about time, in numbers and in words.
 *
 * Pure: instants are milliseconds since the epoch, and "now" is an argument in the
 * service's time (see `LeaseModel.now`).
 */
import type { Lease } from './wire';

/** Who has fewer left is told how many. */
const FEW_RENEWALS = 10;

/** How much the time left asks for attention; each has its colour. */
export type Urgency = 'calm' | 'soon' | 'urgent' | 'critical';

/** Return the seconds until the end, 0 when it has passed; null while no end is set. */
export function secondsLeft(lease: Lease, now: number): number | null {
  if (lease.expires_at === null) {
    return null;
  }
  return Math.max(0, (Date.parse(lease.expires_at) - now) / 1000);
}

/** Return whether the lease is over or being reclaimed: the time to save. */
export function isReclaimed(lease: Lease): boolean {
  return lease.is_ended || lease.state === 'expiring';
}

/** Return the urgency: how many of the warning times have been passed. */
export function urgency(left: number, warnings: readonly number[]): Urgency {
  const passed = warnings.filter(seconds => left <= seconds).length;
  if (passed === 0) {
    return 'calm';
  }
  if (passed === warnings.length) {
    return 'critical';
  }
  return passed === 1 ? 'soon' : 'urgent';
}

/** Write a time left for the status bar: `1h 42m`, `42m`, below ten minutes `9:59`. */
export function shortTime(left: number): string {
  const seconds = Math.ceil(left);
  const minutes = Math.floor(seconds / 60);
  if (minutes >= 60) {
    return `${Math.floor(minutes / 60)}h ${minutes % 60}m`;
  }
  if (minutes >= 10) {
    return `${minutes}m`;
  }
  return `${minutes}:${String(seconds % 60).padStart(2, '0')}`;
}

/** Write a time left as words: `1 hour 42 minutes`, `5 minutes`, `40 seconds`. */
export function longTime(left: number): string {
  if (left <= 59) {
    return plural(Math.ceil(left), 'second');
  }
  const minutes = Math.round(left / 60);
  const hours = Math.floor(minutes / 60);
  const parts = [
    hours > 0 ? plural(hours, 'hour') : '',
    minutes % 60 > 0 ? plural(minutes % 60, 'minute') : ''
  ];
  return parts.filter(part => part !== '').join(' ');
}

/** Write an instant as a time of day in the reader's zone, with the day if it is another. */
export function clockTime(instant: string, now: number): string {
  const date = new Date(instant);
  const isToday = date.toDateString() === new Date(now).toDateString();
  return date.toLocaleString(undefined, {
    ...(isToday ? {} : { weekday: 'short' }),
    hour: '2-digit',
    minute: '2-digit'
  });
}

/** Write an instant to the second, with day and zone. */
export function exactTime(instant: string): string {
  return new Date(instant).toLocaleString(undefined, {
    day: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
    month: 'short',
    second: '2-digit',
    timeZoneName: 'short'
  });
}

/** Say until when the lease can be renewed, as a sentence. */
export function renewalSentence(lease: Lease, now: number): string {
  if (lease.renewable_until === null) {
    return 'It cannot be renewed any more.';
  }
  const until = `It can be renewed until ${clockTime(lease.renewable_until, now)}`;
  return lease.renewals_left < FEW_RENEWALS
    ? `${until}, ${plural(lease.renewals_left, 'more time')}.`
    : `${until}.`;
}

/** Say how and when a lease ended. */
export function endSentence(lease: Lease, now: number): string {
  const time = clockTime(lease.ended_at ?? lease.now, now);
  const reason = lease.reason.replace(/\.$/, '');
  return reason === '' ? `It ended at ${time}.` : `It ended at ${time}: ${reason}.`;
}

/** Say that the user's script runs before the session is stopped; empty when none does. */
export function scriptSentence(lease: Lease): string {
  return lease.note.startsWith('before-reclaim') ? `Your ${lease.note}.` : '';
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
