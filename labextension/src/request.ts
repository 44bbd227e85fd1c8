/**
 * The lease's requests, sent to the user's own server, which holds the token.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { ILeaseApi } from './model';
import type { IPresenceApi } from './presence';
import type { Error as WireError, Lease } from './wire';

/** A refusal with the service's code and its sentence for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string
  ) {
    super(message);
  }
}

export class LeaseApi implements ILeaseApi, IPresenceApi {
  constructor(private readonly _settings: ServerConnection.ISettings) {}

  async lease(): Promise<Lease | null> {
    try {
      return await this._request('GET', '');
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) {
        return null;
      }
      throw error;
    }
  }

  renew(): Promise<Lease> {
    return this._request('POST', 'renew');
  }

  keep(): Promise<Lease> {
    return this._request('POST', 'keep');
  }

  saved(opened: readonly string[]): Promise<Lease> {
    return this._request('POST', 'saved', { opened });
  }

  release(): Promise<Lease> {
    return this._request('POST', 'release');
  }

  async tell(inputSeconds: number, opened: readonly string[]): Promise<readonly Lease[]> {
    const body = { input_seconds: inputSeconds, opened };
    const answer = await this._send<{ idle_gangs: Lease[] }>('POST', 'activity', body);
    return answer.idle_gangs;
  }

  keepGang(gang: Lease): Promise<Lease> {
    return this._send('POST', `gangs/${gang.id}/keep`);
  }

  releaseGang(gang: Lease): Promise<Lease> {
    return this._send('POST', `gangs/${gang.id}/release`);
  }

  private _request(method: 'GET' | 'POST', verb: string, body = {}): Promise<Lease> {
    return this._send(method, `lease/${verb}`, body);
  }

  private async _send<T>(method: 'GET' | 'POST', path: string, body = {}): Promise<T> {
    const url = URLExt.join(this._settings.baseUrl, 'nimbus', path);
    const init =
      method === 'POST'
        ? { body: JSON.stringify(body), method }
        : { cache: 'no-store' as const, method };
    const response = await ServerConnection.makeRequest(url, init, this._settings);
    if (!response.ok) {
      throw await failure(response);
    }
    return (await response.json()) as T;
  }
}

async function failure(response: Response): Promise<ApiError> {
  const fallback = `The server answered ${response.status} ${response.statusText}.`;
  try {
    const body = (await response.json()) as Partial<WireError>;
    return new ApiError(response.status, body.code ?? 'error', body.message ?? fallback);
  } catch {
    return new ApiError(response.status, 'error', fallback);
  }
}
